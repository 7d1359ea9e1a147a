"""The membrane of an integrate-and-fire neuron over time, Eqs. 1, 3 and 4 of Park et al. (2023).

    u(t) = leak * v(t-1) + z(t)                     membrane before the reset, v(-1) = initial
    s(t) = H(u(t) - threshold)
    v(t) = u(t) - s(t) * threshold                  soft reset
    v(t) = (1 - s(t)) * u(t) + s(t) * rest          hard reset

`integrate_and_fire` says so, with autograd through time. `fire` and `backpropagate` are the same by hand: of a whole
layer they keep its currents alone, from which the backward pass computes the membranes once more.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tracegrad.snn.surrogate import Surrogate, spike

Reset = Literal["soft", "hard"]


@dataclass(frozen=True)
class Dynamics:
    """What is the same for all neurons of a layer.

    Args:
        leak: tau; 1 for neurons that do not leak.
        reset: "soft" or "hard".
        rest: v_rest of the hard reset.
        surrogate: u - v_th -> ds/du.
        detach_reset: no gradient through s in the reset.
    """

    leak: float
    reset: Reset
    rest: float
    surrogate: Surrogate
    detach_reset: bool


def membrane_dtype(currents: Tensor) -> torch.dtype:
    """The precision of membranes: that of the currents, at least float32."""
    return torch.promote_types(currents.dtype, torch.float32)


def integrate_and_fire(dynamics: Dynamics, currents: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons, with plain autograd through time.

    Args:
        dynamics: leak, reset and surrogate.
        currents: z, [T, ...].
        threshold: v_th, broadcast to currents[0].
        initial: v(-1), broadcast to currents[0].

    Returns:
        s, 0 or 1, shaped like `currents`.
    """
    dtype = membrane_dtype(currents)
    threshold, membrane = threshold.to(dtype), initial.to(dtype)
    spikes: list[Tensor] = []
    for current in currents:
        before = dynamics.leak * membrane + current.to(dtype)
        fired = spike(before - threshold, dynamics.surrogate)
        spikes.append(fired.to(currents.dtype))
        membrane = _reset(dynamics, before, fired.detach() if dynamics.detach_reset else fired, threshold)
    return torch.stack(spikes)


def fire(dynamics: Dynamics, currents: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
    """The spikes of `integrate_and_fire` without a graph, in the memory layout of the currents; same arguments."""
    dtype = membrane_dtype(currents)
    threshold, membrane = threshold.to(dtype), initial.to(dtype)
    spikes = torch.empty_like(currents)
    for step in range(currents.shape[0]):
        before = dynamics.leak * membrane + currents[step].to(dtype)
        fired = (before - threshold >= 0).to(dtype)
        spikes[step] = fired
        membrane = _reset(dynamics, before, fired, threshold)
    return spikes


def backpropagate(dynamics: Dynamics, currents: Tensor, threshold: Tensor, initial: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `integrate_and_fire` with respect to the currents, by hand.

    With g(t) = dL/ds(t), d(t) = dL/dv(t), d(T-1) = 0 and h the surrogate at u(t) - threshold:

        dL/dz(t) = dL/du(t) = d(t) * (1 or, hard, 1 - s(t)) + e(t) * h
        e(t) = g(t) + d(t) * (-threshold or, hard, rest - u(t)); g(t) alone if the reset is detached
        d(t-1) = leak * dL/du(t)

    Args:
        dynamics: as for the spikes.
        currents: as for the spikes.
        threshold: as for the spikes.
        initial: as for the spikes.
        gradient: dL/ds, shaped like `currents`.

    Returns:
        dL/dz, in the memory layout of the currents.
    """
    dtype = membrane_dtype(currents)
    threshold, membrane = threshold.to(dtype), initial.to(dtype)
    befores: list[Tensor] = []
    for step in range(currents.shape[0]):
        before = dynamics.leak * membrane + currents[step].to(dtype)
        befores.append(before)
        membrane = _reset(dynamics, before, (before - threshold >= 0).to(dtype), threshold)
    for_currents = torch.empty_like(currents)
    for_membrane = torch.zeros_like(befores[0])
    for step in reversed(range(currents.shape[0])):
        before = befores[step]
        distance = before - threshold
        for_spike = gradient[step].to(dtype)
        if not dynamics.detach_reset:
            for_spike = for_spike + for_membrane * (-threshold if dynamics.reset == "soft" else dynamics.rest - before)
        kept = for_membrane if dynamics.reset == "soft" else for_membrane * (distance < 0).to(dtype)
        for_before = kept + for_spike * dynamics.surrogate(distance)
        for_currents[step] = for_before
        for_membrane = dynamics.leak * for_before
    return for_currents


def _reset(dynamics: Dynamics, before: Tensor, fired: Tensor, threshold: Tensor) -> Tensor:
    if dynamics.reset == "soft":
        return before - fired * threshold
    return (1 - fired) * before + fired * dynamics.rest
