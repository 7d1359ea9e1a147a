"""Neurons over time, fast: the equations of `dynamics`, and of the norms before them, compiled.

A layer keeps for the backward pass what it was given, and nothing that it computed: membranes, and normalised currents,
are computed once more. Layers that are too small for compiling to pay, values per neuron, and machines without a
compiler take the same equations as PyTorch operations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.compiled import (
    Order,
    common_order,
    compiled,
    flatten_steps,
    lies_in,
    unflatten_steps,
    worth_compiling,
)
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.snn.dynamics import Dynamics, backpropagate, fire, integrate_and_fire

ROWS = 64
"""Rows of channels that are summed at a time: they lie in the first cache while they are."""


class Normalization(NamedTuple):
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


class Term(NamedTuple):
    """One of the currents that a neuron sums, and its norm: [T, B, ...], or [1, B, ...] for the same at every step."""

    x: Tensor
    norm: Normalization | None = None


class Drive(NamedTuple):
    """What drives the neurons of a layer: a sum of normalised currents over T steps, not computed yet."""

    terms: Sequence[Term]
    time_steps: int


def spikes_of(dynamics: Dynamics, currents: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
    """The spikes of `dynamics.integrate_and_fire`, with its gradients; same arguments."""
    constants = threshold.numel() == initial.numel() == 1 and not (threshold.requires_grad or initial.requires_grad)
    if not (worth_compiling(currents.numel()) and constants and common_order([currents])):
        return integrate_and_fire(dynamics, currents, threshold, initial)
    return spikes_of_drive(dynamics, Drive([Term(currents)], currents.shape[0]), threshold, initial)


def spikes_of_drive(dynamics: Dynamics, drive: Drive, threshold: Tensor, initial: Tensor) -> Tensor:
    """The spikes of `dynamics.integrate_and_fire` for the current that a drive stands for, with its gradients.

    Args:
        dynamics: leak, reset and surrogate.
        drive: all normalised ones of which lie in memory channels last.
        threshold: v_th, one number without a gradient.
        initial: v(-1), one number without a gradient.
    """
    # Autograd gets what has a gradient; what else a layer knows goes beside it.
    tensors = [part for x, norm in drive.terms for part in (x, *((norm.weight, norm.bias) if norm else (None, None)))]
    norms = tuple(
        norm and norm._replace(weight=norm.weight.detach(), bias=norm.bias.detach()) for _, norm in drive.terms
    )
    layer = _Layer(dynamics, drive.time_steps, threshold, initial, norms)
    return _Neurons.apply(layer, *tensors)  # pyright: ignore[reportReturnType]


def can_fuse(xs: Sequence[Tensor], time_steps: int) -> bool:
    """Whether one compiled pass over these currents [T or 1, B, C, ...] and their norms is possible, and worth it."""
    if not worth_compiling(xs[0][0].numel() * time_steps):
        return False
    return all(x.shape == xs[0].shape and lies_in(_channels_last(xs[0]), x) for x in xs)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (of the sample) of each channel of [T, B, C, ...], channels last in memory."""
    rows = _in_rows(x, _channels_last(x))
    # Deviations from a value of the channel itself: the difference of large squares stays small.
    return compiled(_moments)(rows, rows[0, 0, 0].to(at_least_float32(x)))


@dataclass(frozen=True)
class _Layer:
    """What one call of the neurons of a layer has besides its currents and their gammas and betas."""

    dynamics: Dynamics
    time_steps: int
    threshold: Tensor
    initial: Tensor
    norms: tuple[Normalization | None, ...]

    @property
    def normalised(self) -> tuple[bool, ...]:
        return tuple(norm is not None for norm in self.norms)


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: _Layer, *tensors: Tensor | None) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(*tensors)
        return _run(_fire, layer, tensors[::3])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        layer, tensors = ctx.layer, ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants gradients of gradients: autograd knows them
            return None, *_differentiable(layer, tensors, grad_outputs)
        for_current = _run(_backpropagate, layer, tensors[::3], *grad_outputs)
        gradients: list[Tensor | None] = []
        for index, (x, norm) in enumerate(zip(tensors[::3], layer.norms, strict=True)):
            if norm is None:
                gradients += [for_current, None, None]
            else:
                needed = None in layer.norms or index < len(layer.norms) - 1
                gradients += _through_norm(for_current, x, norm, over=not needed)
        return None, *gradients


def _differentiable(layer: _Layer, tensors: Sequence[Any], gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of `_Neurons` as autograd knows them, of the same equations as PyTorch operations."""

    def normalise(x: Tensor, norm: Normalization | None, weight: Tensor, bias: Tensor) -> Tensor:
        if norm is None:
            return x
        statistics = (None, None) if norm.by_batch else (norm.mean, norm.variance)
        y = F.batch_norm(x.flatten(0, 1), *statistics, weight, bias, norm.by_batch, 0.0, norm.eps)
        return y.unflatten(0, x.shape[:2])

    parts = zip(tensors[::3], layer.norms, tensors[1::3], tensors[2::3], strict=True)
    current = reduce(torch.add, [normalise(*part) for part in parts])
    currents = current.expand(layer.time_steps, *current.shape[1:])
    spikes = integrate_and_fire(layer.dynamics, currents, layer.threshold, layer.initial)
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(spikes, wanted, gradients, create_graph=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


def _through_norm(gradient: Tensor, x: Tensor, norm: Normalization, over: bool) -> list[Tensor]:
    """The gradients of x, gamma and beta from that of y = gamma * h + beta, h = (x - mean) / deviation.

    dL/dx = gamma / deviation * (dL/dy - mean(dL/dy) - h * mean(dL/dy * h)), the means over the batch whose statistics
    these are; without them where the statistics are not the batch's. `over` writes dL/dx over `gradient`: memory that
    is new to a process costs as much as the pass itself.
    """
    order = _channels_last(x)
    rows, xs = _in_rows(gradient, order), _in_rows(x, order)
    inverse, (scale, _) = norm.inverse, norm.affine()
    for_bias, products = compiled(_sums)(rows, xs, norm.mean)
    for_weight = products * inverse
    if norm.by_batch:
        count = x.numel() // x.shape[2]
        with_x = -scale * inverse * for_weight / count
        shift = -scale * for_bias / count - with_x * norm.mean
        for_x = compiled(_combined_over if over else _combined)(rows, xs, scale, with_x, shift)
    else:
        for_x = compiled(_scaled)(rows, scale)
    return [unflatten_steps(for_x, x, order), for_weight.to(norm.weight.dtype), for_bias.to(norm.bias.dtype)]


def _run(equations: Callable[..., Tensor], layer: _Layer, xs: Sequence[Any], *gradients: Tensor) -> Tensor:
    """Runs the equations of the neurons, whatever the shape and layout of the currents."""
    normalised = any(layer.normalised)
    order = _channels_last(xs[0]) if normalised else cast(Order, common_order(xs))
    flat = _in_rows if normalised else flatten_steps
    dtype = at_least_float32(xs[0])
    affine = [value.to(dtype) for norm in layer.norms if norm for value in norm.affine()]
    constants = [value.reshape(()).to(dtype) for value in (layer.threshold, layer.initial)]
    run = compiled(equations, layer.dynamics, layer.time_steps, layer.normalised)
    return unflatten_steps(
        run(*(flat(tensor, order) for tensor in (*xs, *gradients)), *affine, *constants), xs[0], order
    )


def _fire(dynamics: Dynamics, time_steps: int, normalised: tuple[bool, ...], *arguments: Tensor) -> Tensor:
    *tensors, threshold, initial = arguments
    currents = _currents(time_steps, normalised, tensors[: len(normalised)], tensors[len(normalised) :])
    return torch.stack([spikes.to(tensors[0].dtype) for spikes in fire(dynamics, currents, threshold, initial)])


def _backpropagate(dynamics: Dynamics, time_steps: int, normalised: tuple[bool, ...], *arguments: Tensor) -> Tensor:
    *tensors, threshold, initial = arguments
    xs, gradient, affine = tensors[: len(normalised)], tensors[len(normalised)], tensors[len(normalised) + 1 :]
    currents = _currents(time_steps, normalised, xs, affine)
    gradients = [step.to(threshold.dtype) for step in gradient]
    for_currents = backpropagate(dynamics, currents, threshold, initial, gradients)
    if xs[0].shape[0] != time_steps:
        for_currents = [reduce(torch.add, for_currents)]
    return torch.stack([step.to(xs[0].dtype) for step in for_currents])


def _currents(
    time_steps: int, normalised: tuple[bool, ...], xs: Sequence[Tensor], affine: Sequence[Tensor]
) -> list[Tensor]:
    """The sum of the normalised currents at every step, in the membranes' precision."""
    values = iter(affine)
    scales = [(next(values), next(values)) if given else None for given in normalised]

    def at(step: int, x: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
        current = x[step if x.shape[0] == time_steps else 0].to(at_least_float32(x))
        return current if scale is None else current * scale[0] + scale[1]

    return [reduce(torch.add, [at(step, *term) for term in zip(xs, scales, strict=True)]) for step in range(time_steps)]


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


def _channels_last(x: Tensor) -> Order:
    return (0, 1, *range(3, x.dim()), 2)


def _in_rows(x: Tensor, order: Order) -> Tensor:
    """[T, blocks, rows, channels] of currents that lie in memory channels last."""
    rows = x.permute(order).flatten(1, -2)
    size = next(size for size in range(min(ROWS, rows.shape[1]), 0, -1) if rows.shape[1] % size == 0)
    return rows.unflatten(1, (-1, size))
