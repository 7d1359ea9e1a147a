"""Spike traces, Eq. 5 of Park et al. (2023)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

DECAY = math.exp(-1)
"""The paper's decay of a trace from one step to the next."""


def spike_trace(spikes: Tensor, decay: float = DECAY) -> Tensor:
    """The trace of a spike train: x(t) = decay * x(t-1) + s(t), x(-1) = 0 (Eq. 5).

    Args:
        spikes: [T, ...], time first.
        decay: what is left of the trace after one step, in [0, 1].

    Returns:
        The trace at every step, shaped like `spikes`.

    Raises:
        ValueError: `spikes` has no time dimension, or `decay` is outside [0, 1].
    """
    if spikes.dim() == 0 or spikes.shape[0] == 0:
        raise ValueError(f"spikes must be [T, ...] with T >= 1, not of shape {list(spikes.shape)}")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    return torch.stack(traces(spikes, decay=decay))


def traces(spikes: Iterable[Tensor], past: Tensor | None = None, decay: float = DECAY) -> list[Tensor]:
    """Eq. 5, step by step.

    Args:
        spikes: s(t), one tensor a step.
        past: x(-1), the trace before the first step; None for zero.
        decay: what is left of the trace after one step.

    Returns:
        x(t), one tensor a step.
    """
    found: list[Tensor] = []
    for spike in spikes:
        past = spike if past is None else decay * past + spike
        found.append(past)
    return found


def at_least_float32(x: Tensor) -> torch.dtype:
    """The precision in which something is added up over time: that of x, or float32 if that is less."""
    return torch.promote_types(x.dtype, torch.float32)
