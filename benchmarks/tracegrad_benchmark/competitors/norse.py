"""Norse (Pehle and Pedersen 2021): the network is called once per step; states go in and out."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad_benchmark.network import Layers, Network
from tracegrad_benchmark.workload import LEAK, THRESHOLD, Competitor, Workload, of_network

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # Norse builds on torch.jit, which PyTorch deprecates
    from norse.torch import LIFBoxCell, LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract

LIBRARY = "Norse"


class NorseNetwork(nn.Module):
    """Images [B, C, H, W] to outputs [T, B, classes]; the stem, which sees a still image, runs once."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.time_steps = workload.time_steps
        self.network = Network(workload, Layers(Neuron))

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step."""
        for module in self.modules():
            if isinstance(module, Neuron):
                module.state = None
        current = self.network.stem(images)
        return torch.stack([self.network.body(current) for _ in range(self.time_steps)])


class Neuron(nn.Module):
    """Norse's LIF without a synaptic current, and its state from one step to the next.

    v(t) = v(t-1) + dt / tau * (z(t) - v(t-1)): with dt / tau = 1 - leak the membrane is (1 - leak) times that of the
    other libraries, and so is its threshold. The surrogate nearest to the boxcar is the triangle.
    """

    def __init__(self) -> None:
        super().__init__()
        share = 1 - LEAK
        parameters = LIFBoxParameters(
            tau_mem_inv=torch.tensor(share),
            v_th=torch.tensor(share * THRESHOLD),
            method="triangle",
            alpha=1 / share,  # pyright: ignore[reportArgumentType] - annotated so, although a tensor by default
            reset_method=reset_subtract,
        )
        self.cell = LIFBoxCell(parameters, dt=1.0)
        self.state: Any = None

    def forward(self, current: Tensor) -> Tensor:
        """The spikes of one step."""
        spikes, self.state = self.cell(current, self.state)
        return spikes


CONTESTANTS = (
    Competitor(LIBRARY, "float32", of_network(NorseNetwork)),
    Competitor(LIBRARY, "bf16", of_network(NorseNetwork)),
    Competitor(LIBRARY, "bf16", of_network(NorseNetwork, accelerated=True), "accelerated"),
)
