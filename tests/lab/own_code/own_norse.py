"""A network of Norse's cells as the network of a recipe."""

import norse.torch as norse
from torch import Tensor, nn


class Network(nn.Module):
    """Images [B, C, 8, 8] -> outputs [T, B, classes]."""

    def __init__(self, in_channels: int, num_classes: int, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.layers = norse.SequentialState(
            norse.Lift(nn.Conv2d(in_channels, 8, 3, 2, 1)),
            norse.LIF(norse.LIFParameters(v_th=0.1)),
            nn.Flatten(2),
            nn.Linear(128, 32),
            norse.LIF(norse.LIFParameters(v_th=0.1)),
            nn.Linear(32, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.layers(images.expand(self.time_steps, *images.shape))
        return outputs


def network(num_classes: int, in_channels: int, time_steps: int) -> nn.Module:
    return Network(in_channels, num_classes, time_steps)
