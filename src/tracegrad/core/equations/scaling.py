"""Gradient scalings, Eq. 7 of Park et al. (2023)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real

import torch
from torch import Tensor

from tracegrad.core.compiled import common_order, compiled, flatten_steps, unflatten_steps, worth_compiling
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.normalization import OF_RELATIONS, Normalization
from tracegrad.core.equations.relation import Relation, TimeMode, relate, relate_moments
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.registry import Registry

ScalingFunction = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient, normalised relation, alpha) -> scaled gradient, all shaped alike."""


@dataclass(frozen=True)
class Scaling:
    """g(G, R_hat).

    Attributes:
        function: `(gradient, relation, alpha) -> gradient`.
        homogeneous: whether it is linear in the gradient, so that it may be applied to one part after another.
    """

    function: ScalingFunction
    homogeneous: bool = False


SCALINGS: Registry[Scaling] = Registry("scaling")


def register_scaling(name: str, *, homogeneous: bool = False) -> Callable[[ScalingFunction], ScalingFunction]:
    """Decorator that makes a function `(gradient, relation, alpha) -> gradient` available as `scaling=name`.

    The function sees tensors shaped like the synapse's weight: for `time="per_step"` it is called once per step with
    that step's part of the gradient, else once.

    Args:
        name: of the scaling.
        homogeneous: whether the function is linear in the gradient. Only then can it serve `time="mean"` and "final"
            where neurons are called step by step: each call of a synapse has a part of the gradient.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: ScalingFunction) -> ScalingFunction:
        SCALINGS.register(name, Scaling(function, homogeneous))
        return function

    return register


@register_scaling("linear", homogeneous=True)
def linear(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = alpha * G * R + (1 - alpha) * G (Eq. 7)."""
    return gradient * (alpha * relation + (1 - alpha))


@register_scaling("exponential", homogeneous=True)
def exponential(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = G exp(alpha R): never turns a gradient's sign, whatever the relation."""
    return gradient * torch.exp(alpha * relation)


@register_scaling("norm_preserving")
def norm_preserving(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """`linear`, then multiplied by |G| / |g(G)| for each output channel: directions change, lengths do not.

    Output channels are the weight's first dimension.
    """
    scaled = linear(gradient, relation, alpha)
    rest = tuple(range(1, gradient.dim()))
    before, after = (torch.linalg.vector_norm(x, dim=rest, keepdim=True) for x in (gradient, scaled))
    return scaled * torch.where(after > 0, before / torch.where(after > 0, after, 1), 1)


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

    @property
    def needs_moments(self) -> bool:
        """Whether R alone does not suffice to normalise it."""
        return self.normalize.by_term

    def relate(self, time: TimeMode, activity: Activity) -> list[Tensor]:
        """R, or the moments of its terms, as the normalisation needs it."""
        of_terms = relate_moments if self.needs_moments else relate
        return of_terms(self.relation, time, activity)

    def normalized(self, raw: Tensor) -> Tensor:
        """R_hat of what `relate` gives for one step, or for all."""
        return self.normalize(raw, self.relation)

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
        known = self.scaling.function is linear and self.normalize in OF_RELATIONS.values()
        fast = known and not torch.is_grad_enabled()
        order = common_order(tensors) if fast and worth_compiling(sum(x.numel() for x in tensors)) else None
        if order is None:
            return _scaled_sum(self.scaling.function, self.normalized, len(raw), self.alpha, *tensors)
        # A tensor, so that one compiled pass serves every alpha.
        alpha = torch.tensor(self.alpha, dtype=at_least_float32(raw[0]), device=raw[0].device)
        run = compiled(_scaled_sum, self.scaling.function, self.normalize.function, len(raw))
        steps = run(alpha, *(flatten_steps(x, order) for x in tensors))
        return unflatten_steps(steps, raw[0], order)


def _scaled_sum(
    scaling: ScalingFunction, normalize: Callable[[Tensor], Tensor], steps: int, alpha: float, *tensors: Tensor
) -> Tensor:
    relations = [normalize(raw.to(at_least_float32(raw))) for raw in tensors[steps:]]
    parts = [
        scaling(gradient.to(relation.dtype), relation, alpha)
        for gradient, relation in zip(tensors[:steps], relations, strict=True)
    ]
    return reduce(torch.add, parts)
