"""The membrane of an integrate-and-fire neuron over time, Eqs. 1, 3 and 4 of Park et al. (2023).

    u(t) = leak * v(t-1) + z(t)                     membrane before the reset, v(-1) = initial
    s(t) = H(u(t) - threshold)
    v(t) = u(t) - s(t) * threshold                  soft reset
    v(t) = (1 - s(t)) * u(t) + s(t) * rest          hard reset

`integrate_and_fire` computes this with autograd through time. `fire` and `backpropagate` are the same by hand: they
keep only the currents of a layer, from which the backward pass computes the membranes again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.snn.surrogate import Surrogate, spike

Reset = Literal["soft", "hard"]


@dataclass(frozen=True)
class Dynamics:
    """Which equations the neurons of a layer follow.

    Args:
        reset: "soft" or "hard".
        surrogate: u - v_th -> ds/du.
        detach_reset: no gradient through s in the reset.
        detach_membrane: no gradient through the membrane from one step to the next.
    """

    reset: Reset
    surrogate: Surrogate
    detach_reset: bool = False
    detach_membrane: bool = False


class NeuronParameters(NamedTuple):
    """The values in these equations; each broadcasts to the currents of one step.

    Attributes:
        leak: tau; 1 for neurons that do not leak.
        threshold: v_th.
        rest: v_rest of the hard reset; the soft reset does not use it.
        initial: v(-1).
    """

    leak: Tensor
    threshold: Tensor
    rest: Tensor
    initial: Tensor


def integrate_and_fire(dynamics: Dynamics, currents: Tensor, parameters: NeuronParameters) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons, with plain autograd through time.

    Args:
        dynamics: reset and surrogate.
        currents: z, [T, ...].
        parameters: leak, threshold, rest and initial membrane.

    Returns:
        s, 0 or 1, shaped like `currents`.
    """
    dtype = at_least_float32(currents)
    parameters = NeuronParameters(*(value.to(dtype) for value in parameters))
    membrane = parameters.initial
    spikes: list[Tensor] = []
    for current in currents:
        fired, membrane = step(dynamics, current.to(dtype), membrane, parameters)
        spikes.append(fired.to(currents.dtype))
    return torch.stack(spikes)


def step(dynamics: Dynamics, current: Tensor, membrane: Tensor, parameters: NeuronParameters) -> tuple[Tensor, Tensor]:
    """One step of `integrate_and_fire`, with plain autograd.

    Args:
        dynamics: reset and surrogate.
        current: z(t), [B, ...], in the precision of membranes.
        membrane: v(t-1).
        parameters: leak, threshold and rest.

    Returns:
        s(t) and v(t).
    """
    before = parameters.leak * membrane + current
    fired = spike(before - parameters.threshold, dynamics.surrogate)
    membrane = _reset(dynamics, before, fired.detach() if dynamics.detach_reset else fired, parameters)
    return fired, membrane.detach() if dynamics.detach_membrane else membrane


def fire(dynamics: Dynamics, currents: Sequence[Tensor], parameters: NeuronParameters) -> list[Tensor]:
    """The spikes of `integrate_and_fire` without a graph.

    Args:
        dynamics: reset and surrogate.
        currents: z, one tensor a step, all arguments in the precision of membranes.
        parameters: leak, threshold, rest and initial membrane.

    Returns:
        s, one tensor a step.
    """
    return [_fired(before, parameters) for before, _ in _membranes(dynamics, currents, parameters)]


def backpropagate(
    dynamics: Dynamics, currents: Sequence[Tensor], parameters: NeuronParameters, grad_spikes: Sequence[Tensor]
) -> tuple[list[Tensor], NeuronParameters]:
    """The gradients of `integrate_and_fire` by hand.

    With g(t) = dL/ds(t), d(t) = dL/dv(t), d(T-1) = 0 and h(t) the surrogate at u(t) - threshold:

        dL/dz(t) = dL/du(t) = d(t) * (1 or, hard, 1 - s(t)) + e(t) * h(t)
        e(t) = g(t) + d(t) * (-threshold or, hard, rest - u(t)); g(t) alone if the reset is detached
        d(t-1) = leak * dL/du(t); 0 if the membrane is detached

        dL/dleak      = sum over t of dL/du(t) * v(t-1)
        dL/dthreshold = -sum over t of e(t) * h(t), and of d(t) * s(t) with the soft reset
        dL/drest      = sum over t of d(t) * s(t) with the hard reset, else 0
        dL/dinitial   = leak * dL/du(0)

    Args:
        dynamics: as for the spikes.
        currents: as for the spikes.
        parameters: as for the spikes.
        grad_spikes: dL/ds, one tensor a step.

    Returns:
        dL/dz, one tensor a step; and the parameters' gradients of each neuron, shaped like the currents of one step:
        where neurons share a value, its gradient is the sum of theirs.
    """
    leak, threshold, rest, _ = parameters
    steps = _membranes(dynamics, currents, parameters)
    grad_membrane = torch.zeros_like(steps[0][0])
    grad_currents: list[Tensor] = []
    through_leak: list[Tensor] = []
    through_spikes: list[Tensor] = []
    through_reset: list[Tensor] = []
    for (before, last), grad_spike in zip(reversed(steps), reversed(grad_spikes), strict=True):
        fired = _fired(before, parameters)
        if not dynamics.detach_reset:
            grad_spike = grad_spike + grad_membrane * (-threshold if dynamics.reset == "soft" else rest - before)
        through_spikes.append(grad_spike * dynamics.surrogate(before - threshold))
        through_reset.append(grad_membrane * fired)
        kept = grad_membrane if dynamics.reset == "soft" else grad_membrane * (1 - fired)
        grad_currents.append(kept + through_spikes[-1])
        through_leak.append(grad_currents[-1] * last)
        if not dynamics.detach_membrane:
            grad_membrane = leak * grad_currents[-1]
    # The compiler drops the sums that are not used.
    reset, spikes = reduce(torch.add, through_reset), reduce(torch.add, through_spikes)
    grad_parameters = NeuronParameters(
        leak=reduce(torch.add, through_leak),
        threshold=-spikes - reset if dynamics.reset == "soft" else -spikes,
        rest=reset if dynamics.reset == "hard" else torch.zeros_like(reset),
        initial=leak * grad_currents[-1],
    )
    return grad_currents[::-1], grad_parameters


def _membranes(
    dynamics: Dynamics, currents: Sequence[Tensor], parameters: NeuronParameters
) -> list[tuple[Tensor, Tensor]]:
    """u(t) and v(t-1) of each step."""
    membrane = parameters.initial
    steps: list[tuple[Tensor, Tensor]] = []
    for current in currents:
        before = parameters.leak * membrane + current
        steps.append((before, membrane))
        membrane = _reset(dynamics, before, _fired(before, parameters), parameters)
    return steps


def _fired(before: Tensor, parameters: NeuronParameters) -> Tensor:
    return (before - parameters.threshold >= 0).to(before.dtype)


def _reset(dynamics: Dynamics, before: Tensor, fired: Tensor, parameters: NeuronParameters) -> Tensor:
    if dynamics.reset == "soft":
        return before - fired * parameters.threshold
    return (1 - fired) * before + fired * parameters.rest
