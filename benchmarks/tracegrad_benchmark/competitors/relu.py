"""The same network without spikes: ReLU for neurons, on T * B images."""

from __future__ import annotations

from torch import Tensor, nn

from tracegrad_benchmark.network import Layers, Network
from tracegrad_benchmark.workload import Competitor, Workload, of_network

LIBRARY = "ReLU network"


class ReLUNetwork(nn.Module):
    """Images [B, C, H, W], each T times, to outputs [T, B, classes]."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.time_steps = workload.time_steps
        self.network = Network(workload, Layers(nn.ReLU))

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step."""
        current = self.network.stem(images.repeat(self.time_steps, 1, 1, 1))
        return self.network.body(current).unflatten(0, (self.time_steps, -1))


CONTESTANTS = (
    Competitor(LIBRARY, "float32", of_network(ReLUNetwork)),
    Competitor(LIBRARY, "bf16", of_network(ReLUNetwork)),
    Competitor(LIBRARY, "bf16", of_network(ReLUNetwork, channels_last=True), "channels-last"),
)
