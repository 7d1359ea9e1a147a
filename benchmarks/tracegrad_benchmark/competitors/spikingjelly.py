"""SpikingJelly (Fang et al. 2023): multi-step layers, all steps of a layer in one call."""

from __future__ import annotations

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from tracegrad_benchmark.network import Layers, Network
from tracegrad_benchmark.workload import LEAK, THRESHOLD, Competitor, Workload, of_network

LIBRARY = "SpikingJelly"


class SpikingJellyNetwork(nn.Module):
    """Images [B, C, H, W] to outputs [T, B, classes]; the stem, which sees a still image, runs once."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.time_steps = workload.time_steps
        self.network = Network(workload, Layers(lif, layer.Conv2d, layer.BatchNorm2d))
        functional.set_step_mode(self, "m")

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step."""
        functional.reset_net(self)
        current = self.network.stem(images[None])
        return self.network.body(current.expand(self.time_steps, -1, -1, -1, -1))


def lif() -> nn.Module:
    """u(t) = u(t-1) - u(t-1) / tau + z(t): leak = 1 - 1/tau; v_reset=None is the soft reset, Rect the boxcar."""
    return neuron.LIFNode(
        tau=1 / (1 - LEAK),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        surrogate_function=surrogate.Rect(),
        step_mode="m",
    )


CONTESTANTS = (
    Competitor(LIBRARY, "float32", of_network(SpikingJellyNetwork)),
    Competitor(LIBRARY, "bf16", of_network(SpikingJellyNetwork)),
    Competitor(LIBRARY, "bf16", of_network(SpikingJellyNetwork, accelerated=True), "accelerated"),
    Competitor(LIBRARY, "bf16", of_network(SpikingJellyNetwork, channels_last=True), "channels-last"),
)
