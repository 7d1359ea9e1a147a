"""Spiking neurons over time. They keep no state between calls."""

from typing import get_args

import torch
from torch import Tensor, nn

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.neurons import register_neuron
from tracegrad.snn.dynamics import Dynamics, Reset
from tracegrad.snn.kernels import Drive, spikes_of, spikes_of_drive
from tracegrad.snn.surrogate import SURROGATES


@register_neuron
class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, all steps in one call: currents [T, B, ...] -> spikes [T, B, ...].

    The equations are those of `tracegrad.snn.dynamics`. The membrane starts anew in every call.

    Args:
        leak: tau, what is left of the membrane after one step, in [0, 1].
        threshold: v_th; one number, or one per channel: dimension 2 of [T, B, C, ...], the last of [T, B, N, D].
            A parameter is trained, a tensor is kept as a buffer.
        reset: "soft" subtracts the threshold, "hard" sets the membrane to `rest`.
        rest: the membrane after a hard reset.
        surrogate: a registered surrogate: "boxcar", "narrow_boxcar", "triangle", "arctan", "sigmoid", or your own.
        detach_reset: cuts the gradient through the spike in the reset.
        initial: the membrane before the first step; a number, or a tensor that broadcasts to [B, ...].
        height: of a spike.
        detach_membrane: cuts the gradient through the membrane from one step to the next.

    Raises:
        ValueError: leak outside [0, 1], a threshold that is not positive, or an unknown reset or surrogate.
    """

    def __init__(
        self,
        leak: float = 0.9,
        threshold: float | Tensor = 0.5,
        reset: Reset = "soft",
        rest: float = 0.0,
        surrogate: str = "boxcar",
        detach_reset: bool = False,
        initial: float | Tensor = 0.0,
        height: float | Tensor = 1.0,
        detach_membrane: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must be in [0, 1], not {leak}")
        if reset not in get_args(Reset):
            raise ValueError(f"unknown reset {reset!r}; the known ones are 'soft', 'hard'")
        if not (bool((threshold > 0).all()) if isinstance(threshold, Tensor) else threshold > 0):
            raise ValueError(f"threshold must be positive, not {threshold}")
        SURROGATES[surrogate]
        self.leak = leak
        self.reset: Reset = reset
        self.rest = rest
        self.surrogate = surrogate
        self.detach_reset = detach_reset
        self.detach_membrane = detach_membrane
        self.threshold = self._constant("threshold", threshold)
        self.initial = self._constant("initial", initial)
        self.height = self._constant("height", height)

    def _constant(self, name: str, value: float | Tensor) -> float | Tensor:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, value)
        return value

    @property
    def dynamics(self) -> Dynamics:
        """The equations of these neurons."""
        surrogate = SURROGATES[self.surrogate]
        return Dynamics(self.leak, self.reset, self.rest, surrogate, self.detach_reset, self.detach_membrane)

    def forward(self, currents: Tensor | Drive) -> Tensor:
        """Currents [T, B, ...] to spikes of the same shape.

        Raises:
            ValueError: no time and batch dimension, or thresholds that fit no channel dimension.
        """
        example = currents.terms[0].x if isinstance(currents, Drive) else currents
        if example.dim() < 2:
            raise ValueError(f"currents must be [T, B, ...], not of shape {list(example.shape)}")
        threshold = _per_channel(self.threshold, example)
        initial = torch.as_tensor(self.initial, dtype=at_least_float32(example), device=example.device)
        if isinstance(currents, Drive):
            spikes = spikes_of_drive(self.dynamics, currents, threshold, initial)
        else:
            spikes = spikes_of(self.dynamics, currents, threshold, initial)
        if not isinstance(self.height, Tensor) and self.height == 1:
            return spikes
        return spikes * _per_channel(self.height, example).to(example.dtype)

    def extra_repr(self) -> str:
        """The options, as in the constructor."""
        return f"leak={self.leak}, reset={self.reset!r}, surrogate={self.surrogate!r}"


@register_neuron
class IF(LIF):
    """Integrate-and-fire neurons without a leak: LIF with leak = 1; same arguments otherwise."""

    def __init__(
        self,
        threshold: float | Tensor = 0.5,
        reset: Reset = "soft",
        rest: float = 0.0,
        surrogate: str = "boxcar",
        detach_reset: bool = False,
        initial: float | Tensor = 0.0,
        height: float | Tensor = 1.0,
        detach_membrane: bool = False,
    ) -> None:
        super().__init__(1.0, threshold, reset, rest, surrogate, detach_reset, initial, height, detach_membrane)


def _per_channel(value: float | Tensor, currents: Tensor) -> Tensor:
    """A number, or one value per channel shaped to broadcast to currents[0], in the membrane's precision."""
    value = torch.as_tensor(value, dtype=at_least_float32(currents), device=currents.device)
    if value.dim() == 0:
        return value
    channel = 3 if currents.dim() == 4 and value.numel() == currents.shape[3] else 2
    if value.dim() != 1 or currents.dim() <= channel or currents.shape[channel] != value.numel():
        raise ValueError(f"values of shape {list(value.shape)} per channel do not fit currents {list(currents.shape)}")
    return value.reshape(-1, *(1 for _ in range(currents.dim() - channel - 1)))
