"""Neurons over time, fast: the equations of `dynamics`, with the norms before them, compiled.

For the backward pass a layer keeps what it was given, and nothing that it computed: membranes, and normalised currents,
are computed again. Layers that are too small to be worth compiling, values per neuron, and machines without a compiler
run the same equations as PyTorch operations.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.compiled import common_order, compiled, lies_in, worth_compiling
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.snn.batch_norm import BatchNormOf, batch_norm_gradients, channels_last
from tracegrad.snn.dynamics import Dynamics, NeuronParameters, backpropagate, fire, integrate_and_fire
from tracegrad.snn.layout import Layout


class NormedCurrent(NamedTuple):
    """One of the currents that a neuron sums, and its norm: [T, B, ...], or [1, B, ...] for the same at every step."""

    x: Tensor
    norm: BatchNormOf | None = None


class SummedCurrents(NamedTuple):
    """A sum of normalised currents over T steps that drives the neurons of a layer, not computed yet."""

    currents: Sequence[NormedCurrent]
    time_steps: int


def fire_layer(dynamics: Dynamics, currents: Tensor | SummedCurrents, parameters: NeuronParameters) -> Tensor:
    """The spikes of `dynamics.integrate_and_fire`, with its gradients, in one compiled pass where that is worth it.

    Args:
        dynamics: reset and surrogate.
        currents: z, [T, B, ...]; or a sum whose normalised currents lie in memory channels last.
        parameters: each one number or, for the compiled pass, one per channel. For a sum that is required.
    """
    if isinstance(currents, Tensor):
        if not (
            worth_compiling(currents.numel()) and _are_per_channel(parameters, currents) and common_order([currents])
        ):
            return integrate_and_fire(dynamics, currents, parameters)
        currents = SummedCurrents([NormedCurrent(currents)], len(currents))
    # Autograd is given what may need a gradient; the layer holds the rest.
    normed = [(x, norm.weight, norm.bias) if norm else (x, None, None) for x, norm in currents.currents]
    norms = tuple(
        norm and norm._replace(weight=norm.weight.detach(), bias=norm.bias.detach()) for _, norm in currents.currents
    )
    layer = _Layer(dynamics, currents.time_steps, norms)
    return _FireLayer.apply(layer, *parameters, *chain(*normed))  # pyright: ignore[reportReturnType]


def can_fuse(xs: Sequence[Tensor], time_steps: int) -> bool:
    """Whether one compiled pass over these currents [T or 1, B, C, ...] and their norms is possible, and worth it."""
    if not worth_compiling(xs[0][0].numel() * time_steps):
        return False
    return all(x.shape == xs[0].shape and lies_in(channels_last(xs[0]), x) for x in xs)


def _are_per_channel(parameters: NeuronParameters, currents: Tensor) -> bool:
    """Whether each parameter is one number, or has one value for each place along one dimension, the same for all."""
    several = [value for value in parameters if value.numel() > 1]
    return len({value.dim() for value in several}) < 2 and all(
        value.dim() < currents.dim() and value.numel() == len(value) == currents.shape[-value.dim()]
        for value in several
    )


@dataclass(frozen=True)
class _Layer:
    """What one call of the neurons of a layer has besides the tensors that may need a gradient."""

    dynamics: Dynamics
    time_steps: int
    norms: tuple[BatchNormOf | None, ...]

    @property
    def normalised(self) -> tuple[bool, ...]:
        return tuple(norm is not None for norm in self.norms)


class _FireLayer(torch.autograd.Function):
    """Takes the parameters of the neurons, then of each current x, gamma and beta."""

    @staticmethod
    def forward(ctx: Any, layer: _Layer, *tensors: Any) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(*tensors)
        parameters, xs = NeuronParameters(*tensors[:4]), tensors[4::3]
        layout = Layout.of(xs[0], parameters, any(layer.normalised))
        return layout.unflatten(_run(_fire, layer, layout, xs, (), parameters), xs[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        layer, tensors = ctx.layer, ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are left to autograd
            return None, *_differentiable(layer, tensors, grad_outputs)
        parameters, xs = NeuronParameters(*tensors[:4]), tensors[4::3]
        layout, wanted = Layout.of(xs[0], parameters, any(layer.normalised)), list(ctx.needs_input_grad[1:5])
        wanted[2] &= layer.dynamics.reset == "hard"  # the soft reset does not use the rest
        flat, *sums = _run(_backpropagate, layer, layout, xs, grad_outputs, parameters, tuple(wanted), layout.sums_rows)
        grad_current, remaining = layout.unflatten(flat, xs[0]), iter(sums)
        gradients: list[Tensor | None] = [
            layout.finish_sum(next(remaining), value) if is_wanted else None
            for value, is_wanted in zip(parameters, wanted, strict=True)
        ]
        for index, (x, norm) in enumerate(zip(xs, layer.norms, strict=True)):
            if norm is None:
                gradients += [grad_current, None, None]
            else:
                needed = None in layer.norms or index < len(layer.norms) - 1
                gradients += batch_norm_gradients(grad_current, x, norm, over=not needed)
        return None, *gradients


def _differentiable(layer: _Layer, tensors: Sequence[Any], gradients: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of `_FireLayer` by autograd, of the same equations as PyTorch operations."""

    def normalise(x: Tensor, norm: BatchNormOf | None, weight: Tensor, bias: Tensor) -> Tensor:
        if norm is None:
            return x
        statistics = (None, None) if norm.by_batch else (norm.mean, norm.variance)
        y = F.batch_norm(x.flatten(0, 1), *statistics, weight, bias, norm.by_batch, 0.0, norm.eps)
        return y.unflatten(0, x.shape[:2])

    parts = zip(tensors[4::3], layer.norms, tensors[5::3], tensors[6::3], strict=True)
    current = reduce(torch.add, [normalise(*part) for part in parts])
    currents = current.expand(layer.time_steps, *current.shape[1:])
    spikes = integrate_and_fire(layer.dynamics, currents, NeuronParameters(*tensors[:4]))
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(spikes, wanted, gradients, create_graph=True, allow_unused=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


def _run(
    equations: Callable[..., Any],
    layer: _Layer,
    layout: Layout,
    xs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    parameters: NeuronParameters,
    *constants: Hashable,
) -> Any:
    """Runs the equations of the neurons, compiled, on flattened currents."""
    dtype = at_least_float32(xs[0])
    values = [*chain(*(norm.affine() for norm in layer.norms if norm)), *parameters]
    run = compiled(equations, layer.dynamics, layer.time_steps, layer.normalised, *constants)
    return run(*map(layout.flatten, (*xs, *gradients)), *(layout.spread(value).to(dtype) for value in values))


def _fire(dynamics: Dynamics, time_steps: int, normalised: tuple[bool, ...], *tensors: Tensor) -> Tensor:
    xs, values = tensors[: len(normalised)], tensors[len(normalised) :]
    spikes = fire(dynamics, _currents(time_steps, normalised, xs, values[:-4]), NeuronParameters(*values[-4:]))
    return torch.stack([step.to(xs[0].dtype) for step in spikes])


def _backpropagate(
    dynamics: Dynamics,
    time_steps: int,
    normalised: tuple[bool, ...],
    wanted: tuple[bool, ...],
    sums_rows: bool,
    *tensors: Tensor,
) -> tuple[Tensor, ...]:
    xs, gradient, values = tensors[: len(normalised)], tensors[len(normalised)], tensors[len(normalised) + 1 :]
    parameters = NeuronParameters(*values[-4:])
    currents = _currents(time_steps, normalised, xs, values[:-4])
    grad_spikes = [step.to(parameters.leak.dtype) for step in gradient]
    grad_currents, grad_parameters = backpropagate(dynamics, currents, parameters, grad_spikes)
    if xs[0].shape[0] != time_steps:
        grad_currents = [reduce(torch.add, grad_currents)]
    summands = [each for each, is_wanted in zip(grad_parameters, wanted, strict=True) if is_wanted]
    sums = [each.sum(-1) for each in summands] if sums_rows else summands
    return torch.stack([step.to(xs[0].dtype) for step in grad_currents]), *sums


def _currents(
    time_steps: int, normalised: tuple[bool, ...], xs: Sequence[Tensor], affine: Sequence[Tensor]
) -> list[Tensor]:
    """The sum of the normalised currents at every step, in the membranes' precision."""
    values = iter(affine)
    scales = [(next(values), next(values)) if given else None for given in normalised]

    def at(step: int, x: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
        current = x[step if x.shape[0] == time_steps else 0].to(at_least_float32(x))
        return current if scale is None else current * scale[0] + scale[1]

    return [reduce(torch.add, [at(step, *part) for part in zip(xs, scales, strict=True)]) for step in range(time_steps)]
