"""Batch normalisation of currents, compiled: statistics, and the gradients through it.

Normalising itself is left to what reads the normalised currents (`kernels`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tracegrad.core.compiled import Order, compiled, unflatten_steps
from tracegrad.core.equations.trace import at_least_float32

ROWS = 64
"""Rows of channels that are summed at a time, so that they stay in the first-level cache meanwhile."""


class BatchNormOf(NamedTuple):
    """Batch normalisation of one current: y = weight * (x - mean) / sqrt(variance + eps) + bias, per channel.

    Attributes:
        weight: gamma.
        bias: beta.
        mean: of each channel, without a gradient.
        variance: of each channel (of the sample, not the population), without a gradient.
        eps: added to the variance.
        by_batch: mean and variance are those of x, so that its gradient passes through them.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    by_batch: bool

    @property
    def inverse(self) -> Tensor:
        """1 / standard deviation."""
        return torch.rsqrt(self.variance + self.eps)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift with y = scale * x + shift."""
        scale = self.weight * self.inverse
        return scale, self.bias - self.mean * scale


def channels_last(x: Tensor) -> Order:
    """The dimensions of [T, B, C, ...] with the channels last."""
    return (0, 1, *range(3, x.dim()), 2)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (of the sample) of each channel of [T, B, C, ...], channels last in memory."""
    rows = _in_rows(x)
    # Deviations from a value of the channel itself: the difference of large squares stays small.
    return compiled(_moments)(rows, rows[0, 0, 0].to(at_least_float32(x)))


def batch_norm_gradients(grad_output: Tensor, x: Tensor, norm: BatchNormOf, over: bool) -> list[Tensor]:
    """The gradients of x, gamma and beta from that of y = gamma * h + beta, h = (x - mean) / deviation.

    dL/dx = gamma / deviation * (dL/dy - mean(dL/dy) - h * mean(dL/dy * h)), the means over the batch whose statistics
    these are; without them where the statistics are not the batch's. `over` writes dL/dx over `grad_output`: memory
    that is new to a process costs as much as the pass itself.
    """
    grad_rows, rows = _in_rows(grad_output), _in_rows(x)
    inverse, (scale, _) = norm.inverse, norm.affine()
    grad_bias, products = compiled(_sums)(grad_rows, rows, norm.mean)
    grad_weight = products * inverse
    if norm.by_batch:
        count = x.numel() // x.shape[2]
        with_x = -scale * inverse * grad_weight / count
        shift = -scale * grad_bias / count - with_x * norm.mean
        combine, tensors, values = _combined_over if over else _combined, (grad_rows, rows), (scale, with_x, shift)
    else:
        combine, tensors, values = _scaled, (grad_rows,), (scale,)
    # A whole block of rows is one long line of vectors, where one row of few channels is a part of a vector.
    lines = (each.flatten(2) for each in tensors)
    grad_input = compiled(combine)(*lines, *(value.repeat(rows.shape[2]) for value in values))
    grad_input = unflatten_steps(grad_input, x, channels_last(x))
    return [grad_input, grad_weight.to(norm.weight.dtype), grad_bias.to(norm.bias.dtype)]


def _in_rows(x: Tensor) -> Tensor:
    """[T, blocks, rows, channels] of currents that lie in memory channels last."""
    rows = x.permute(channels_last(x)).flatten(1, -2)
    size = next(size for size in range(min(ROWS, rows.shape[1]), 0, -1) if rows.shape[1] % size == 0)
    return rows.unflatten(1, (-1, size))


def _moments(rows: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    count = rows.shape[0] * rows.shape[1] * rows.shape[2]
    deviation = rows.to(origin.dtype) - origin
    mean = deviation.sum(2).sum((0, 1)) / count
    square = deviation.square().sum(2).sum((0, 1)) / count
    return mean + origin, square - mean.square()


def _sums(gradient: Tensor, rows: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    gradient = gradient.to(mean.dtype)
    products = gradient * (rows.to(mean.dtype) - mean)
    return gradient.sum(2).sum((0, 1)), products.sum(2).sum((0, 1))


def _scaled(gradient: Tensor, scale: Tensor) -> Tensor:
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


def _combined(gradient: Tensor, rows: Tensor, scale: Tensor, with_x: Tensor, shift: Tensor) -> Tensor:
    return (gradient.to(scale.dtype) * scale + rows.to(scale.dtype) * with_x + shift).to(rows.dtype)


def _combined_over(gradient: Tensor, *others: Tensor) -> Tensor:
    return gradient.copy_(_combined(gradient, *others))
