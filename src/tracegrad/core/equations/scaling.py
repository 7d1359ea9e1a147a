"""Gradient scalings, Eq. 7 of Park et al. (2023), and the normalisations of the relation in it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real

import torch
from torch import Tensor

from tracegrad.core.compiled import common_order, compiled, flatten_steps, unflatten_steps, worth_compiling
from tracegrad.core.equations.relation import Relation, TimeMode
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.registry import Registry

Normalization = Callable[[Tensor], Tensor]
"""A raw relation, shaped like the weight -> the normalised one."""


def normalized(normalize: Normalization, raw: Tensor) -> Tensor:
    """R_hat, in float32 at least."""
    return normalize(raw.to(at_least_float32(raw)))


def _by_max(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().amax())


def _by_mean(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().mean())


def _by_neuron(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().amax(tuple(range(1, raw.dim())), keepdim=True))


def _as_it_is(raw: Tensor) -> Tensor:
    return raw


def _divide(raw: Tensor, scale: Tensor) -> Tensor:
    # Silent ends make raw and scale zero: the relation is then zero, not NaN.
    return raw / torch.where(scale > 0, scale, 1.0)


NORMALIZATIONS: Registry[Normalization] = Registry("normalization")
NORMALIZATIONS.register("max", _by_max)
NORMALIZATIONS.register("mean", _by_mean)
NORMALIZATIONS.register("neuron", _by_neuron)
NORMALIZATIONS.register("none", _as_it_is)

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


def checked_alpha(alpha: object) -> float:
    """Alpha as it is; raises TypeError unless it is a number, ValueError unless that is in [0, 1]."""
    if not isinstance(alpha, Real):
        raise TypeError(f"alpha must be a number in [0, 1], not {alpha!r}")
    number = float(alpha)
    if not 0 <= number <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    return number


@dataclass(frozen=True)
class Rule:
    """How gradients are scaled: Eqs. 6 and 7 with everything chosen that they leave open."""

    alpha: float
    relation: Relation
    normalize: Normalization
    scaling: Scaling
    time: TimeMode
    relation_batch: float = 1.0

    def sample_size(self, batch: int) -> int:
        """How many of the examples the relation is computed of."""
        return math.ceil(self.relation_batch * batch)

    def scaled_sum(self, gradients: Sequence[Tensor], raw: Sequence[Tensor]) -> Tensor:
        """The sum of g(G, R_hat) over what is scaled one by one, in the relation's precision, float32 at least.

        Args:
            gradients: G, weight-shaped: one for each step, or one for all.
            raw: R before it is normalised, as many.
        """
        tensors = (*gradients, *raw)
        # What a user registered may hold what a compiler does not follow; gradients of gradients need autograd.
        fast = self.scaling is linear and not torch.is_grad_enabled()
        order = common_order(tensors) if fast and worth_compiling(sum(x.numel() for x in tensors)) else None
        if order is None:
            return _scaled_sum(self.scaling, self.normalize, len(raw), self.alpha, *tensors)
        # A tensor, so that one compiled pass serves every alpha.
        alpha = torch.tensor(self.alpha, dtype=at_least_float32(raw[0]), device=raw[0].device)
        run = compiled(_scaled_sum, self.scaling, self.normalize, len(raw))
        steps = run(alpha, *(flatten_steps(x, order) for x in tensors))
        return unflatten_steps(steps, raw[0], order)


def _scaled_sum(scaling: Scaling, normalize: Normalization, steps: int, alpha: float, *tensors: Tensor) -> Tensor:
    relations = [normalized(normalize, raw) for raw in tensors[steps:]]
    parts = [
        scaling(gradient.to(relation.dtype), relation, alpha)
        for gradient, relation in zip(tensors[:steps], relations, strict=True)
    ]
    return reduce(torch.add, parts)
