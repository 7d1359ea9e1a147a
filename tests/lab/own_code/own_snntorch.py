"""A loop over time with snnTorch's neurons as the network of a recipe."""

import snntorch
import torch
from torch import Tensor, nn


class Loop(nn.Module):
    """Images [B, C, 8, 8] -> outputs [T, B, classes]."""

    def __init__(self, in_channels: int, num_classes: int, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.conv, self.lif1 = nn.Conv2d(in_channels, 8, 3, 2, 1), snntorch.Leaky(beta=0.9, threshold=0.5)
        self.hidden, self.lif2 = nn.Linear(128, 32), snntorch.Leaky(beta=0.9, threshold=0.5)
        self.head = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        mem1, mem2, outputs = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for _ in range(self.time_steps):
            spikes, mem1 = self.lif1(self.conv(images), mem1)
            spikes, mem2 = self.lif2(self.hidden(spikes.flatten(1)), mem2)
            outputs.append(self.head(spikes))
        return torch.stack(outputs)


def network(num_classes: int, in_channels: int, time_steps: int) -> nn.Module:
    return Loop(in_channels, num_classes, time_steps)
