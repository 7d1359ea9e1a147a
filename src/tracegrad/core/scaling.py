"""Gradient scalings, Eq. 7 of Park et al. (2023)."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from tracegrad.core.compiled import common_order, compiled, in_line, out_of_line, pays
from tracegrad.core.registry import Registry
from tracegrad.core.relation import Normalization, normalized

Scaling = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient, normalised relation, alpha) -> scaled gradient, all shaped alike."""

SCALINGS: Registry[Scaling] = Registry("scaling")


def register_scaling(name: str) -> Callable[[Scaling], Scaling]:
    """Decorator that makes a function `(gradient, relation, alpha) -> gradient` available as `scaling=name`.

    The function sees tensors shaped like the synapse's weight: for `time="per_step"` it is called once per step with
    that step's part of the gradient, else once.

    Raises:
        ValueError: the name is taken.
    """
    return lambda scaling: SCALINGS.register(name, scaling)


@register_scaling("linear")
def linear(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = alpha * G * R + (1 - alpha) * G (Eq. 7)."""
    return gradient * (alpha * relation + (1 - alpha))


def scaled_sum(
    scaling: Scaling, normalize: Normalization, alpha: float, gradients: Sequence[Tensor], raw: Sequence[Tensor]
) -> Tensor:
    """The sum of g(G, R_hat) over the steps that are scaled one by one, in the relation's precision, float32 at least.

    Args:
        scaling: g.
        normalize: raw R -> R_hat.
        alpha: the interpolation coefficient.
        gradients: G, one weight-shaped tensor for each step, or one for all.
        raw: R before it is normalised, alike.
    """
    tensors = (*gradients, *raw)
    # What a user registered may hold what a compiler does not follow; gradients of gradients need autograd.
    fast = scaling is linear and not torch.is_grad_enabled() and pays(sum(step.numel() for step in tensors))
    order = common_order(tensors) if fast else None
    if order is None:
        return _scaled_sum(scaling, normalize, alpha, len(raw), *tensors)
    run = compiled(_scaled_sum, scaling, normalize, alpha, len(raw))
    return out_of_line(run(*(in_line(step, order) for step in tensors)), raw[0], order)


def _scaled_sum(scaling: Scaling, normalize: Normalization, alpha: float, steps: int, *tensors: Tensor) -> Tensor:
    relations = [normalized(normalize, raw) for raw in tensors[steps:]]
    parts = [
        scaling(gradient.to(relation.dtype), relation, alpha)
        for gradient, relation in zip(tensors[:steps], relations, strict=True)
    ]
    return reduce(torch.add, parts)
