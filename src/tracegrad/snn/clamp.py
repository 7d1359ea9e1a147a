"""Bounds of a value that is trained."""

from typing import Any

import torch
from torch import Tensor


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.bounds = low, high
        ctx.save_for_backward(value)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (value,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, grad_outputs
        outwards = ((value <= low) & (gradient > 0)) | ((value >= high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None


def clamp(value: Tensor, low: float, high: float) -> Tensor:
    """value, clamped to [low, high], with a gradient that never holds a trained value at a bound or beyond it.

    With g = dL/d(clamped value), and gradient descent moving a value by -g:

        dL/dvalue = 0 where value <= low and g > 0, and where value >= high and g < 0: the step would lead outwards
                    g elsewhere: between the bounds, and where the step leads inwards

    `torch.clamp` differs: it passes g at a bound in both directions, and never beyond it.

    Args:
        value: any shape.
        low: the lower bound.
        high: the upper bound.
    """
    return _Clamp.apply(value, low, high)  # pyright: ignore[reportReturnType]
