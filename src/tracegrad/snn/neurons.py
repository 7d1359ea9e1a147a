"""Spiking neurons, all steps in one call or one step a call. They keep no state between calls."""

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Self, SupportsFloat, get_args

import torch
from torch import Tensor, nn

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.neurons import register_neuron
from tracegrad.snn.clamp import clamp
from tracegrad.snn.dynamics import Dynamics, NeuronParameters, Reset, step
from tracegrad.snn.kernels import SummedCurrents, fire_layer
from tracegrad.snn.surrogate import SURROGATES


class _LeakyNeurons(nn.Module):
    """The values of leaky integrate-and-fire neurons, as `LIF` describes them."""

    def __init__(
        self,
        leak: float | Tensor = 0.9,
        threshold: float | Tensor = 0.5,
        reset: Reset = "soft",
        rest: float | Tensor = 0.0,
        surrogate: str = "boxcar",
        detach_reset: bool = False,
        initial: float | Tensor = 0.0,
        height: float | Tensor = 1.0,
        detach_membrane: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("leak", leak), ("threshold", threshold), ("rest", rest), ("height", height)):
            _check_kind(name, value)
        _check_values("leak", leak, "in [0, 1]", lambda each: 0 <= each <= 1)
        _check_values("threshold", threshold, "positive", lambda each: each > 0)
        _check_values("rest", rest, "finite", isfinite)
        if reset not in get_args(Reset):
            raise ValueError(f"unknown reset {reset!r}; the known ones are 'soft', 'hard'")
        SURROGATES[surrogate]
        self.reset: Reset = reset
        self.surrogate = surrogate
        self.detach_reset = detach_reset
        self.detach_membrane = detach_membrane
        self.leak = self._kept("leak", leak)
        self.threshold = self._kept("threshold", threshold)
        self.rest = self._kept("rest", rest)
        self.initial = self._kept("initial", initial)
        self.height = self._kept("height", height)

    def _kept(self, name: str, value: float | Tensor) -> float | Tensor:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        return value

    @property
    def dynamics(self) -> Dynamics:
        """Which equations these neurons follow."""
        return Dynamics(self.reset, SURROGATES[self.surrogate], self.detach_reset, self.detach_membrane)

    def _values(self, currents: Tensor) -> NeuronParameters:
        """The values of the equations, shaped to broadcast to currents[0], in the membrane's precision."""
        leak = clamp(self.leak, 0, 1) if isinstance(self.leak, Tensor) else self.leak
        return NeuronParameters(
            _per_channel("leak", leak, currents),
            _per_channel("threshold", self.threshold, currents),
            _per_channel("rest", self.rest, currents),
            _as_membrane(self.initial, currents),
        )

    def _of_height(self, spikes: Tensor, currents: Tensor) -> Tensor:
        if not isinstance(self.height, Tensor) and self.height == 1:
            return spikes
        return spikes * _per_channel("height", self.height, currents).to(currents.dtype)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        leak = self.leak
        if isinstance(leak, Tensor):
            leak = f"{leak.item():g}" if leak.numel() == 1 else f"({leak.numel()} values)"
        return f"leak={leak}, reset={self.reset!r}, surrogate={self.surrogate!r}"


@register_neuron
class LIF(_LeakyNeurons):
    """Leaky integrate-and-fire neurons, all steps in one call: currents [T, B, ...] -> spikes [T, B, ...].

    The equations are those of `tracegrad.snn.dynamics`. Every call starts from the membrane `initial`.

    leak, threshold, rest and height are each one number, a tensor of one number, or a tensor of one per channel:
    dimension 2 of [T, B, C, ...], the last of [T, B, N, D]. A `nn.Parameter` is trained, another tensor is kept as a
    buffer; both are attributes of the same name, and entries of `state_dict` under it.

    A leak that is a tensor is clamped to [0, 1] where it is used. Its gradient g is passed on between 0 and 1, at 0 and
    below where g <= 0, and at 1 and above where g >= 0; it is 0 where gradient descent, a step along -g, would lead
    outwards. So a leak is never stuck at a bound.

    Args:
        leak: tau, the part of the membrane that is left after one step, in [0, 1].
        threshold: v_th, positive.
        reset: "soft" subtracts the threshold, "hard" sets the membrane to `rest`.
        rest: the membrane after a hard reset; the soft reset does not use it.
        surrogate: a registered surrogate: "boxcar", "narrow_boxcar", "triangle", "arctan", "sigmoid", or your own.
        detach_reset: cuts the gradient through the spike in the reset.
        initial: the membrane before the first step; a number, or a tensor that broadcasts to [B, ...].
        height: of a spike.
        detach_membrane: cuts the gradient through the membrane from one step to the next.

    Raises:
        ValueError: leak outside [0, 1], a threshold that is not positive, a tensor of more than one dimension for one
            of the values, or an unknown reset or surrogate.
        TypeError: one of the values is neither a number nor a tensor.
    """

    def forward(self, currents: Tensor | SummedCurrents) -> Tensor:
        """Currents [T, B, ...] to spikes of the same shape.

        Raises:
            ValueError: no time and batch dimension, or values per channel that do not fit the channels.
        """
        example = currents.currents[0].x if isinstance(currents, SummedCurrents) else currents
        if example.dim() < 2:
            raise ValueError(f"currents must be [T, B, ...], not of shape {list(example.shape)}")
        spikes = fire_layer(self.dynamics, currents, self._values(example))
        return self._of_height(spikes, example)


@register_neuron
class IF(LIF):
    """Integrate-and-fire neurons without a leak: LIF with leak = 1; same arguments otherwise."""

    def __init__(
        self,
        threshold: float | Tensor = 0.5,
        reset: Reset = "soft",
        rest: float | Tensor = 0.0,
        surrogate: str = "boxcar",
        detach_reset: bool = False,
        initial: float | Tensor = 0.0,
        height: float | Tensor = 1.0,
        detach_membrane: bool = False,
    ) -> None:
        super().__init__(1.0, threshold, reset, rest, surrogate, detach_reset, initial, height, detach_membrane)


@partial(register_neuron, step=True, state="membrane", reset="it without a membrane")
class LIFCell(_LeakyNeurons):
    """`LIF` one step a call, for networks that decide at each step what comes next, such as recurrent ones.

    Current [B, ...] and the membrane that the step before left, None at the first -> spikes and membrane, [B, ...]. The
    arguments are those of `LIF`.

    Example:
        membrane = None
        for current in currents:
            spikes, membrane = cell(current, membrane)
    """

    @classmethod
    def of(cls, neurons: LIF) -> Self:
        """The same neurons, one step a call; tensors and parameters are shared."""
        return cls(
            neurons.leak,
            neurons.threshold,
            neurons.reset,
            neurons.rest,
            neurons.surrogate,
            neurons.detach_reset,
            neurons.initial,
            neurons.height,
            neurons.detach_membrane,
        )

    def forward(self, current: Tensor, membrane: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The spikes of a step, shaped like `current`, and the membrane after it, in float32 at least.

        Raises:
            ValueError: values per channel that do not fit the channels.
        """
        parameters = self._values(current[None])
        before = parameters.initial if membrane is None else membrane
        spikes, after = step(self.dynamics, current.to(parameters.leak.dtype), before, parameters)
        return self._of_height(spikes.to(current.dtype), current[None]), after


def _check_kind(name: str, value: float | Tensor) -> None:
    if not isinstance(value, SupportsFloat):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not always typed
        raise TypeError(f"{name} must be a number or a tensor, not {value!r}")
    if isinstance(value, Tensor) and (value.dim() > 1 or not value.numel()):
        raise ValueError(f"{name} must be one number or one per channel, not of shape {list(value.shape)}")


def _check_values(name: str, value: float | Tensor, wanted: str, is_right: Callable[[float], bool]) -> None:
    if isinstance(value, Tensor) and value.is_meta:
        return  # has no values yet
    for each in value.detach().flatten().tolist() if isinstance(value, Tensor) else [value]:
        if not is_right(each):
            raise ValueError(f"{name} must be {wanted}, not {round(each, 6)}")


def _as_membrane(value: float | Tensor, currents: Tensor) -> Tensor:
    """A value in the membrane's precision, where the currents are."""
    dtype = at_least_float32(currents)
    if isinstance(value, Tensor):
        return value.to(currents.device, dtype)
    return torch.full((), value, dtype=dtype, device=currents.device)


def _per_channel(name: str, value: float | Tensor, currents: Tensor) -> Tensor:
    """One number, or one per channel shaped to broadcast to currents[0], in the membrane's precision."""
    value = _as_membrane(value, currents)
    if value.numel() == 1:
        return value.reshape(())
    channel = 3 if currents.dim() == 4 and value.numel() == currents.shape[3] else 2
    if value.dim() != 1 or currents.dim() <= channel or currents.shape[channel] != value.numel():
        raise ValueError(
            f"{name}: values of shape {list(value.shape)} per channel do not fit currents {list(currents.shape)}"
        )
    return value.reshape(-1, *(1 for _ in range(currents.dim() - channel - 1)))
