"""Whether outputs are spikes: 0 or of one height."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tracegrad.core.conventions.dependence import tolerance
from tracegrad.core.time_layout import Time


def are_spikes(outputs: Sequence[Tensor], time: Time) -> bool:
    """Whether outputs of a neuron are 0 or of one positive height, which may differ between features.

    Args:
        outputs: of several calls.
        time: where time is in them, and T.
    """
    values = torch.cat([_examples_first(output, time) for output in outputs])
    rounding = tolerance(values) * values.abs().amax(0)
    fired = values.abs() > rounding
    lowest = values.masked_fill(~fired, torch.inf).amin(0)
    highest = values.masked_fill(~fired, -torch.inf).amax(0)
    return bool((~fired.any(0) | ((lowest > 0) & (highest - lowest <= rounding))).all())


def _examples_first(x: Tensor, time: Time) -> Tensor:
    """[T * B, ...], features last."""
    layout, time_steps = time
    steps = layout.split(x, time_steps)
    return steps.flatten(0, 1) if steps.dim() > 1 else steps
