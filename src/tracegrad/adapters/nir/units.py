"""Neurons in the units of NIR, and back.

Ours:  u(t) = leak * v(t-1) + z(t), a spike where u(t) >= threshold, then v = rest.
NIR's: tau * dv/dt = (v_leak - v) + r * I, a spike where v > v_threshold, then v = v_reset.

The Euler step makes of the second w(t) = (1 - g) * w(t-1) + g * (v_leak + r * I) with g = dt / tau. That is the first
for w = g * u, g = 1 - leak, r = 1 and v_leak = 0: thresholds and rests are multiplied by g. (r = 1 / g would leave them
as they are, but Norse takes every r as 1.) An IF node, dv/dt = r * I, is read by everybody with dt = 1.
"""

from collections.abc import Callable

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tracegrad.snn.neurons import LIF

DT = 1e-4
"""The Euler step in seconds: snnTorch's, which cannot be chosen there."""

Array = NDArray[np.float64]


def node_of(neuron: LIF, shape: tuple[int, ...], dt: float) -> nir.LIF | nir.IF:
    """The node of hard-reset neurons.

    Args:
        neuron: ours.
        shape: of one time step of one sample, (C, H, W) or (N,).
        dt: the Euler step in seconds.

    Raises:
        ValueError: what NIR cannot say.
    """
    if neuron.reset != "hard":
        raise ValueError("has a soft reset, and NIR's neurons reset hard; train with reset='hard'")
    for name, wanted in (("initial", 0), ("height", 1)):
        value = getattr(neuron, name)
        if not bool(torch.as_tensor(value == wanted).all()):
            raise ValueError(f"has {name}={value}, and NIR's neurons have {name}={wanted}")
    threshold = _per_neuron(neuron.threshold, shape)
    one, rest, gain = np.ones(shape), _per_neuron(neuron.rest, shape), 1 - _per_neuron(neuron.leak, shape).clip(0, 1)
    if not gain.any():
        return nir.IF(r=one, v_threshold=threshold, v_reset=rest)
    if not gain.all():
        raise ValueError("has a leak of 1 in some channels alone, and a NIR node is LIF or IF as a whole")
    return nir.LIF(tau=dt / gain, r=one, v_leak=np.zeros(shape), v_threshold=threshold * gain, v_reset=rest * gain)


def neuron_of(node: nir.LIF | nir.IF, dt: float, make: Callable[..., LIF]) -> LIF:
    """The neurons of a node.

    Leak, threshold and rest are rounded to 14 digits, those that survive the change of units: 0.9 stays 0.9.

    Args:
        node: of the graph.
        dt: the Euler step in seconds.
        make: LIF, with what NIR does not say given.

    Raises:
        ValueError: what our neurons cannot do.
    """
    if isinstance(node, nir.IF):
        gain = np.asarray(node.r, float)
        leak = 1.0
    else:
        if np.any(node.v_leak):
            raise ValueError(f"has v_leak {np.asarray(node.v_leak).max():g}; ours leak to 0")
        step = _single("tau", dt / np.asarray(node.tau, float))
        if not 0 < step <= 1:
            raise ValueError(f"has tau {dt / step:g}, shorter than the time step dt = {dt:g}")
        gain = step * np.asarray(node.r, float)
        leak = _rounded(1 - step)
    if not np.all(gain > 0):
        raise ValueError(f"has r {np.min(node.r):g}; it must be positive")
    threshold = _per_channel("v_threshold", np.asarray(node.v_threshold, float) / gain)
    reset = np.zeros_like(gain) if node.v_reset is None else np.asarray(node.v_reset, float)
    return make(leak=leak, threshold=threshold, reset="hard", rest=_rounded(_single("v_reset", reset / gain)))


def _per_neuron(value: float | Tensor, shape: tuple[int, ...]) -> Array:
    """One value, or one per channel, for every neuron."""
    values = torch.as_tensor(value, dtype=torch.float64).detach().cpu().numpy()
    return np.broadcast_to(values.reshape(-1, *(1 for _ in shape[1:])), shape).copy()


def _per_channel(name: str, values: Array) -> float | Tensor:
    """One value where all agree, or one per channel, the first dimension."""
    if np.ptp(values) == 0:
        return _rounded(float(values.flat[0]))
    channels = values.reshape(len(values), -1)
    if np.ptp(channels, axis=1).any():
        raise ValueError(f"has a {name} that differs within a channel; ours have one per channel")
    return torch.tensor([_rounded(value) for value in channels[:, 0]], dtype=torch.float64)


def _single(name: str, values: Array) -> float:
    if np.ptp(values):
        raise ValueError(f"has {name} of several values, {values.min():g} to {values.max():g}; ours have one per layer")
    return float(values.flat[0])


def _rounded(value: float) -> float:
    return float(f"{value:.14g}")
