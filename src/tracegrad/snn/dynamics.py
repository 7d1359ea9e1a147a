"""The membrane of an integrate-and-fire neuron over time, Eqs. 1, 3 and 4 of Park et al. (2023).

    u(t) = leak * v(t-1) + z(t)                     membrane before the reset, v(-1) = initial
    s(t) = H(u(t) - threshold)
    v(t) = u(t) - s(t) * threshold                  soft reset
    v(t) = (1 - s(t)) * u(t) + s(t) * rest          hard reset

`integrate_and_fire` says so, with autograd through time. `fire` and `backpropagate` are the same by hand: of a whole
layer they keep its currents alone, from which the backward pass computes the membranes once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tracegrad.core.equations.trace import at_least_float32
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
        detach_membrane: no gradient through the membrane from one step to the next.
    """

    leak: float
    reset: Reset
    rest: float
    surrogate: Surrogate
    detach_reset: bool
    detach_membrane: bool = False


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
    dtype = at_least_float32(currents)
    threshold, membrane = threshold.to(dtype), initial.to(dtype)
    spikes: list[Tensor] = []
    for current in currents:
        before = dynamics.leak * membrane + current.to(dtype)
        fired = spike(before - threshold, dynamics.surrogate)
        spikes.append(fired.to(currents.dtype))
        membrane = _reset(dynamics, before, fired.detach() if dynamics.detach_reset else fired, threshold)
        if dynamics.detach_membrane:
            membrane = membrane.detach()
    return torch.stack(spikes)


def fire(dynamics: Dynamics, currents: Sequence[Tensor], threshold: Tensor, initial: Tensor) -> list[Tensor]:
    """The spikes of `integrate_and_fire` without a graph.

    Args:
        dynamics: leak, reset and surrogate.
        currents: z, one tensor a step, all arguments in the precision of membranes.
        threshold: v_th.
        initial: v(-1).

    Returns:
        s, one tensor a step.
    """
    membrane = initial
    spikes: list[Tensor] = []
    for current in currents:
        before = dynamics.leak * membrane + current
        fired = (before - threshold >= 0).to(before.dtype)
        spikes.append(fired)
        membrane = _reset(dynamics, before, fired, threshold)
    return spikes


def backpropagate(
    dynamics: Dynamics, currents: Sequence[Tensor], threshold: Tensor, initial: Tensor, gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The gradient of `integrate_and_fire` with respect to the currents, by hand.

    With g(t) = dL/ds(t), d(t) = dL/dv(t), d(T-1) = 0 and h the surrogate at u(t) - threshold:

        dL/dz(t) = dL/du(t) = d(t) * (1 or, hard, 1 - s(t)) + e(t) * h
        e(t) = g(t) + d(t) * (-threshold or, hard, rest - u(t)); g(t) alone if the reset is detached
        d(t-1) = leak * dL/du(t); 0 if the membrane is detached

    Args:
        dynamics: as for the spikes.
        currents: as for the spikes.
        threshold: as for the spikes.
        initial: as for the spikes.
        gradients: dL/ds, one tensor a step.

    Returns:
        dL/dz, one tensor a step.
    """
    membrane = initial
    befores: list[Tensor] = []
    for current in currents:
        before = dynamics.leak * membrane + current
        befores.append(before)
        membrane = _reset(dynamics, before, (before - threshold >= 0).to(before.dtype), threshold)
    for_currents: list[Tensor] = []
    for_membrane = torch.zeros_like(befores[0])
    for before, for_spike in zip(reversed(befores), reversed(gradients), strict=True):
        distance = before - threshold
        if not dynamics.detach_reset:
            for_spike = for_spike + for_membrane * (-threshold if dynamics.reset == "soft" else dynamics.rest - before)
        kept = for_membrane if dynamics.reset == "soft" else for_membrane * (distance < 0).to(before.dtype)
        for_before = kept + for_spike * dynamics.surrogate(distance)
        for_currents.append(for_before)
        if not dynamics.detach_membrane:
            for_membrane = dynamics.leak * for_before
    return for_currents[::-1]


def _reset(dynamics: Dynamics, before: Tensor, fired: Tensor, threshold: Tensor) -> Tensor:
    if dynamics.reset == "soft":
        return before - fired * threshold
    return (1 - fired) * before + fired * dynamics.rest
