"""QCFS, "SNN-aware training": quantised activations that integrate-and-fire neurons reproduce (Bu et al. 2022).

    h(x) = lam * floor(L * clip(x / lam, 0, 1) + 1/2) / L

A network is trained with h instead of ReLU and then converted: h becomes an integrate-and-fire neuron with threshold
lam, soft reset, v(-1) = lam / 2 and spikes of height lam. A constant current over T = L steps makes such a neuron fire
L * h / lam times, so its mean over time is h. Deeper layers see uneven spikes, so whole networks agree approximately.
"""

import copy
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.methods.conversion import (
    MAX_POOLS,
    Folded,
    average_of,
    check_time_steps,
    exchange,
    knows_time,
    over_time,
)
from tracegrad.methods.linearity import check_linear
from tracegrad.snn.neurons import IF


class QCFS(nn.Module):
    """The activation h (quantisation, clip, floor, shift), for inputs of any shape.

    The floor passes gradients straight through:

        dh/dx   = 1 where 0 <= x <= lam, else 0
        dh/dlam = (h - x) / lam where 0 <= x <= lam, 1 above lam, 0 below 0

    Args:
        levels: L, the number of levels above 0; 4 for CIFAR in the paper.
        start: the initial value of lam, which is trained; one number per layer.

    Raises:
        ValueError: levels below 1 or start not positive; in a call, a lam that is no longer positive.
    """

    def __init__(self, levels: int = 4, start: float = 8.0) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be at least 1, not {levels}")
        if start <= 0:
            raise ValueError(f"start must be above 0, not {start}")
        self.levels = levels
        self.lam = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs to activations of the same shape, each one of the L + 1 levels."""
        self.check()
        scaled = self.levels * (x / self.lam).clamp(0, 1) + 0.5
        # The difference of a number and its floor is exact in floating point, and so is this sum: a whole number.
        level = scaled + (scaled.floor() - scaled).detach()
        return self.lam * level / self.levels

    def check(self) -> None:
        """Raises ValueError if training has made lam zero, negative or NaN."""
        if not self.lam > 0:
            raise ValueError(
                f"lam of QCFS must stay positive, but it is {self.lam.item():g}: "
                "lower the learning rate or the weight decay, or start higher"
            )

    def extra_repr(self) -> str:
        """The options, and the current lam."""
        return f"levels={self.levels}, lam={self.lam.item():g}"


class LevelCounter:
    """Sums of the levels of QCFS activations, L h / lam, by the module's name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.activations: dict[str, int] = {}
        """How many activations there were, those of level 0 too."""

    def add(self, name: str, module: nn.Module, _inputs: Any, output: Tensor) -> None:
        """Adds one call."""
        assert isinstance(module, QCFS)  # noqa: S101 - for the type checker
        levels = (output.detach().double() * (module.levels / module.lam.detach().double())).round().sum()
        self._sums[name] = self._sums[name] + levels if name in self._sums else levels
        self.activations[name] = self.activations.get(name, 0) + output.numel()

    @property
    def per_layer(self) -> dict[str, int]:
        """The sum over each layer's activations, in the order of their first call."""
        return {name: int(levels) for name, levels in self._sums.items()}

    @property
    def total(self) -> int:
        """The sum over all layers."""
        return sum(self.per_layer.values())


@contextmanager
def count_levels(network: nn.Module) -> Generator[LevelCounter]:
    """Counts the levels of a network's QCFS activations inside the block: the spikes that they are worth.

    An activation of level k, 0 to L, is what an integrate-and-fire neuron passes on by k spikes in T = L steps, and
    makes as many additions of each weight behind it.
    """
    counter = LevelCounter()
    modules = [(name, module) for name, module in network.named_modules() if isinstance(module, QCFS)]
    handles = [module.register_forward_hook(partial(counter.add, name)) for name, module in modules]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def convert_qcfs(network: nn.Module, time_steps: int | None = None, example: Tensor | None = None) -> nn.Module:
    """A spiking copy of a network that was trained with QCFS, in evaluation mode.

    Every QCFS module becomes an `IF`, every max pool module an average pool; everything else, weights included, is
    copied. The mean over time of the copy's outputs approximates the network's output.

    Args:
        network: its activations are QCFS modules and its max pools modules; between them everything is affine.
        time_steps: T. If given, the copy takes images [B, ...] and returns outputs [T, B, ...]; each image is the
            input current at every step. The models of this package repeat the image themselves, other networks are
            `Repeated`. If None, the copy takes what the network takes, and its neurons must get [T, B, ...].
        example: an input of the network, of any batch size, on which it is checked that all else is affine; None: it is
            not checked.

    Returns:
        The copy; it shares no weights with the network.

    Raises:
        ValueError: time_steps below 1, no QCFS, a lam that is not positive, a dilated max pool, or other activations
            and pools: functions such as `F.relu` and `F.max_pool2d`, and other modules. The error names the module
            whose forward computes them.
    """
    if time_steps is not None:
        check_time_steps(time_steps)
    if not any(isinstance(module, QCFS) for module in network.modules()):
        raise ValueError(f"{type(network).__name__} holds no QCFS; convert a network that was trained with it")
    source = copy.deepcopy(network).eval()
    if example is not None:
        check_linear(source, example, (QCFS, *MAX_POOLS))
    folded_steps = None if knows_time(network) else time_steps

    def neuron(activation: nn.Module) -> nn.Module:
        spiking = _neuron(activation)
        return spiking if folded_steps is None else Folded(spiking, folded_steps)

    converted = exchange(source, (QCFS,), neuron)
    converted = exchange(converted, MAX_POOLS, average_of)
    return (converted if time_steps is None else over_time(converted, time_steps)).eval()


def _neuron(activation: nn.Module) -> IF:
    assert isinstance(activation, QCFS)  # noqa: S101 - for the type checker
    activation.check()
    lam = activation.lam.detach()
    return IF(threshold=lam.clone(), reset="soft", initial=lam / 2, height=lam.clone())
