"""The membrane of an integrate-and-fire neuron over time, Eqs. 1, 3 and 4 of Park et al. (2023)."""

from typing import Literal

import torch
from torch import Tensor

from tracegrad.snn.surrogate import Surrogate, spike

Reset = Literal["soft", "hard"]


def integrate_and_fire(
    currents: Tensor,
    threshold: Tensor | float,
    leak: float,
    reset: Reset,
    rest: float,
    surrogate: Surrogate,
    detach_reset: bool,
    initial: Tensor | float,
) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons, with plain autograd through time.

        u(t) = leak * v(t-1) + z(t)                     membrane before the reset, v(-1) = initial
        s(t) = H(u(t) - threshold)
        v(t) = u(t) - s(t) * threshold                  soft reset
        v(t) = (1 - s(t)) * u(t) + s(t) * rest          hard reset

    Args:
        currents: z, [T, ...].
        threshold: v_th, broadcast to currents[0].
        leak: tau; 1 for neurons that do not leak.
        reset: "soft" or "hard".
        rest: v_rest of the hard reset.
        surrogate: u - v_th -> ds/du.
        detach_reset: no gradient through s in the reset.
        initial: v(-1), broadcast to currents[0].

    Returns:
        s, 0 or 1, shaped like `currents`.
    """
    membrane: Tensor | float = initial
    spikes: list[Tensor] = []
    for current in currents:
        before = leak * membrane + current
        fired = spike(before - threshold, surrogate)
        spikes.append(fired)
        reset_by = fired.detach() if detach_reset else fired
        membrane = before - reset_by * threshold if reset == "soft" else (1 - reset_by) * before + reset_by * rest
    return torch.stack(spikes)
