"""Neurons in the units of NIR, and back.

Ours:  u(t) = leak * v(t-1) + z(t), a spike where u(t) >= threshold, then v = rest.
NIR's: tau * dv/dt = (v_leak - v) + r * I, a spike where v > v_threshold, then v = v_reset.

The Euler step turns the second into w(t) = (1 - g) * w(t-1) + g * (v_leak + r * I) with g = dt / tau. This is the first
for w = g * u, g = 1 - leak, r = 1 and v_leak = 0, with thresholds and rests multiplied by g. (r = 1 / g would leave
them unchanged, but Norse takes every r as 1.) All readers take an IF node, dv/dt = r * I, with dt = 1.
"""

import math
from collections.abc import Callable

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tracegrad.adapters.nir.fields import numbers
from tracegrad.snn.neurons import LIF

DT = 1e-4
"""The Euler step in seconds: snnTorch's, where it is fixed."""

Array = NDArray[np.float64]


def check_dt(dt: float) -> None:
    """Raises ValueError if the Euler step is not positive and finite."""
    if not (dt > 0 and math.isfinite(dt)):
        raise ValueError(f"dt must be a positive number of seconds, not {dt}")


def node_of(neuron: LIF, shape: tuple[int, ...], dt: float) -> nir.LIF | nir.IF:
    """The node of hard-reset neurons.

    Args:
        neuron: leak, threshold and rest may be numbers or tensors, with one value or one per channel.
        shape: of one time step of one sample, (C, H, W), (C, L) or (N,).
        dt: the Euler step in seconds.

    Raises:
        ValueError: neurons that NIR cannot express.
    """
    if neuron.reset != "hard":
        raise ValueError("has a soft reset, and NIR's neurons reset hard; train with reset='hard'")
    for name, wanted in (("initial", 0), ("height", 1)):
        value = getattr(neuron, name)
        if not bool(torch.as_tensor(value == wanted).all()):
            raise ValueError(f"has {name}={value}, and NIR's neurons have {name}={wanted}")
    leak, threshold, rest = (_per_neuron(name, getattr(neuron, name), shape) for name in ("leak", "threshold", "rest"))
    leak = leak.clip(0, 1)  # as neurons do with a leak that training moves out of [0, 1]
    if (leak == 1).all():
        return nir.IF(r=np.ones(shape), v_threshold=threshold, v_reset=rest)
    if (leak == 1).any():
        raise ValueError(
            "has a leak of 1 in some channels only; NIR has a node for leak 1 and one for less, none for both"
        )
    gain = 1 - leak
    return nir.LIF(
        tau=dt / gain, r=np.ones(shape), v_leak=np.zeros(shape), v_threshold=threshold * gain, v_reset=rest * gain
    )


def neuron_of(node: nir.LIF | nir.IF, dt: float, make: Callable[..., LIF]) -> LIF:
    """The neurons of a node.

    Leak, threshold and rest are rounded to 14 digits, those that survive the change of units: 0.9 stays 0.9.

    Args:
        node: of the graph.
        dt: the Euler step in seconds.
        make: LIF, with the arguments that are not part of NIR already given.

    Raises:
        ValueError: fields that are no finite numbers or differ in shape, or neurons that ours cannot be.
    """
    r, v_threshold, v_reset, *leaky = _fields(node)
    if (r <= 0).any():
        raise ValueError(f"has r {r.min():g}; it must be positive")
    gain, leak = r, np.ones_like(r)
    if leaky:
        tau, v_leak = leaky
        if v_leak.any():
            raise ValueError(f"has v_leak {v_leak.flat[np.abs(v_leak).argmax()]:g}; ours leak to 0")
        if (tau < dt).any():
            raise ValueError(f"has tau {tau.min():g}, shorter than the time step dt = {dt:g}")
        gain, leak = dt / tau * r, 1 - dt / tau
    with np.errstate(all="ignore"):
        threshold, rest = v_threshold / gain, v_reset / gain
    if not (np.isfinite(threshold).all() and np.isfinite(rest).all()):
        raise ValueError(f"has r dt / tau as small as {gain.min():g}; thresholds divided by it are infinite")
    return make(
        leak=_per_channel("tau", leak),
        threshold=_per_channel("v_threshold", threshold),
        reset="hard",
        rest=_per_channel("v_reset", rest),
    )


def shape_of(node: nir.LIF | nir.IF) -> tuple[int, ...]:
    """The shape of a node's neurons; errors as for `neuron_of`."""
    return _fields(node)[0].shape


def _fields(node: nir.LIF | nir.IF) -> list[Array]:
    """r, v_threshold and v_reset, and of an LIF node tau and v_leak, in one shape."""
    names = ["r", "v_threshold", "v_reset", *([] if isinstance(node, nir.IF) else ["tau", "v_leak"])]
    values = {name: getattr(node, name) for name in names}
    if values["v_reset"] is None:
        values["v_reset"] = 0
    arrays = {name: numbers(value, name).astype(np.float64) for name, value in values.items()}
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise ValueError(f"has fields of shapes that do not fit each other: {shapes}") from None


def _per_neuron(name: str, value: float | Tensor, shape: tuple[int, ...]) -> Array:
    """One value, or one per channel, for every neuron."""
    values = torch.as_tensor(value, dtype=torch.float64).detach().cpu().numpy().ravel()
    if values.size == 1:
        return np.full(shape, values.item())
    channel = _channel(shape, values.size)
    if values.size != shape[channel]:
        raise ValueError(f"has {values.size} values of {name}, and currents of shape {list(shape)}")
    return np.broadcast_to(values.reshape([-1 if dim == channel else 1 for dim in range(len(shape))]), shape).copy()


def _per_channel(name: str, values: Array) -> float | Tensor:
    """One value where all agree, or one per channel."""
    if np.ptp(values) == 0:
        return _rounded(values.flat[0])
    for channel in range(min(2, values.ndim)):
        channels = np.moveaxis(values, channel, 0).reshape(values.shape[channel], -1)
        if not np.ptp(channels, axis=1).any() and _channel(values.shape, len(channels)) == channel:
            return torch.tensor([_rounded(value) for value in channels[:, 0]], dtype=torch.float64)
    raise ValueError(f"has a {name} that differs within a channel; ours have one per channel")


def _channel(shape: tuple[int, ...], count: int) -> int:
    """The dimension that `count` values per channel belong to, as in `tracegrad.LIF`: the last of [N, D], else C."""
    return 1 if len(shape) == 2 and shape[1] == count else 0


def _rounded(value: float) -> float:
    return float(f"{value:.14g}")
