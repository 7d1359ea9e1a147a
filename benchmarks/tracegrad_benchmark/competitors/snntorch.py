"""snnTorch (Eshraghian et al. 2023): the network is called once per step; its neurons hide their state."""

from __future__ import annotations

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

from tracegrad_benchmark.network import Layers, Network
from tracegrad_benchmark.workload import LEAK, THRESHOLD, Competitor, Workload, of_network

LIBRARY = "snnTorch"


class SnnTorchNetwork(nn.Module):
    """Images [B, C, H, W] to outputs [T, B, classes]; the stem, which sees a still image, runs once."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.time_steps = workload.time_steps
        self.network = Network(workload, Layers(lif))

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step."""
        for module in self.modules():
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        current = self.network.stem(images)
        return torch.stack([self.network.body(current) for _ in range(self.time_steps)])


def lif() -> nn.Module:
    """reset_delay=False: the reset follows its spike in the same step, as in the other libraries."""
    return snntorch.Leaky(
        beta=LEAK,
        threshold=THRESHOLD,
        spike_grad=surrogate.custom_surrogate(_boxcar),
        init_hidden=True,
        reset_delay=False,
    )


def _boxcar(distance: Tensor, gradient: Tensor, spikes: Tensor) -> Tensor:
    return gradient * (distance.abs() <= 0.5)


CONTESTANTS = (
    Competitor(LIBRARY, "float32", of_network(SnnTorchNetwork)),
    Competitor(LIBRARY, "bf16", of_network(SnnTorchNetwork)),
    Competitor(LIBRARY, "bf16", of_network(SnnTorchNetwork, accelerated=True), "accelerated"),
)
