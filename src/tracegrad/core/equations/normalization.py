"""Normalisations of a relation: R -> R_hat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracegrad.core.equations.moments import Moments
from tracegrad.core.equations.relation import Relation
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.registry import Registry

OfRelation = Callable[[Tensor], Tensor]
"""R, shaped like the weight -> R_hat."""


@dataclass(frozen=True)
class Normalization:
    """How a relation is normalised: as a whole, or each of its terms by the sums over its ends.

    Attributes:
        function: from R, or, `by_term`, from the `Moments` of a term, to R_hat.
        by_term: whether each term is normalised by itself.
    """

    function: Callable[[Any], Tensor]
    by_term: bool = False

    def __call__(self, raw: Tensor, relation: Relation) -> Tensor:
        """R_hat, in float32 at least.

        Args:
            raw: R, shaped like the weight, or, `by_term`, [terms, moments, *weight].
            relation: the terms; R_hat of several that are normalised by themselves is their mean, with their signs.
        """
        raw = raw.to(at_least_float32(raw))
        if not self.by_term:
            return self.function(raw)
        terms = [term.sign * self.function(Moments(*sums)) for term, sums in zip(relation, raw, strict=True)]
        return torch.stack(terms).mean(0)


NORMALIZATIONS: Registry[Normalization] = Registry("normalization")


def register_normalization(name: str) -> Callable[[OfRelation], OfRelation]:
    """Decorator that makes a function `relation -> relation` available as `normalize=name`.

    The function sees R as it is, shaped like the synapse's weight and in float32 at least: of each step for
    `time="per_step"`, else once.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: OfRelation) -> OfRelation:
        NORMALIZATIONS.register(name, Normalization(function))
        return function

    return register


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


OF_RELATIONS = {
    "max": Normalization(_by_max),
    "mean": Normalization(_by_mean),
    "neuron": Normalization(_by_neuron),
    "none": Normalization(_as_it_is),
}
"""Those that a compiler follows; what a user registers may hold anything."""
OF_MOMENTS = {
    name: Normalization(function, by_term=True)
    for name, function in (("cosine", Moments.cosine), ("centered", Moments.centered), ("lift", Moments.lift))
}
for _name, _normalization in (OF_RELATIONS | OF_MOMENTS).items():
    NORMALIZATIONS.register(_name, _normalization)
