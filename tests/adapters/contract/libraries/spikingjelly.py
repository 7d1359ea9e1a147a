"""SpikingJelly: its neurons and layers in both step modes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from contract.library import Fire, Library

THRESHOLD = 0.3


@dataclass(frozen=True)
class Dynamics:
    """A neuron of SpikingJelly, and the same equations in a loop."""

    build: Callable[[], nn.Module]
    charge: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    reset: float | None = 0.0

    def fire(self, current: Tensor) -> Tensor:
        """All steps, [T, B, ...]."""
        v, steps = torch.full_like(current[0], self.reset or 0.0), []
        for z in current:
            h = self.charge(v, z)
            over = h.detach() - THRESHOLD
            s = (over >= 0).to(h) + (h - h.detach()) * self.slope(over)
            v = h - s * THRESHOLD if self.reset is None else (1 - s) * h + s * self.reset
            steps.append(s)
        return torch.stack(steps)


def _sigmoid_slope(over: Tensor) -> Tensor:
    value = torch.sigmoid(4 * over)
    return 4 * value * (1 - value)


def _arctangent_slope(over: Tensor) -> Tensor:
    return 1 / (1 + (math.pi * over) ** 2)


DYNAMICS = {
    "LIFNode": Dynamics(
        partial(neuron.LIFNode, tau=2.0, v_threshold=THRESHOLD, v_reset=-0.1),
        lambda v, z: v + (z - (v + 0.1)) / 2.0,
        _sigmoid_slope,
        reset=-0.1,
    ),
    "IFNode": Dynamics(
        partial(neuron.IFNode, v_threshold=THRESHOLD, v_reset=None, surrogate_function=surrogate.ATan()),
        lambda v, z: v + z,
        _arctangent_slope,
        reset=None,
    ),
}


class _SpikingJelly(Library):
    reset = r"functional\.reset_net\(model\)"
    mode: str

    def __init__(self, neurons: Mapping[str, Callable[[], nn.Module]] | None = None) -> None:
        neurons = neurons or {name: dynamics.build for name, dynamics in DYNAMICS.items()}
        self.neurons = {name: partial(self._in_mode, build) for name, build in neurons.items()}
        kinds = (layer.Conv2d, layer.BatchNorm2d, layer.MaxPool2d)
        self.layers = SimpleNamespace(**{kind.__name__: partial(kind, step_mode=self.mode) for kind in kinds})

    def _in_mode(self, build: Callable[[], nn.Module]) -> nn.Module:
        node = build()
        functional.set_step_mode(node, self.mode)
        return node

    def begin(self, network: nn.Module) -> Fire:
        functional.reset_net(network)
        return self.fire

    def detach(self, model: nn.Module) -> None:
        functional.detach_net(model)


class SpikingJelly(_SpikingJelly):
    mode, layout = "m", "T B"


class SpikingJellySteps(_SpikingJelly):
    mode = "s"
