"""Normalisations of a relation: R -> R_hat."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.core.equations.moments import Moments
from tracegrad.core.equations.relation import Relation
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.registry import Registry

OfRelation = Callable[[Tensor], Tensor]
"""R, shaped like the weight -> R_hat."""
OfMoments = Callable[[Moments], Tensor]
"""The sums of one term -> its R_hat."""


@dataclass(frozen=True)
class Normalization:
    """How a relation is normalised: as a whole, or each of its terms by the sums over its ends.

    Attributes:
        whole: of R; None if it is `by_term`.
        by_term: of the sums of each term.
        in_unit_interval: whether R_hat of a relation without signs lies in [0, 1].
    """

    whole: OfRelation | None = None
    by_term: OfMoments | None = None
    in_unit_interval: bool = False

    def __call__(self, raw: Tensor, relation: Relation) -> Tensor:
        """R_hat, in float32 at least.

        Args:
            raw: R, shaped like the weight, or, where it is `by_term`, [terms, moments, *weight].
            relation: the terms; each is normalised by itself, and R_hat is their mean with their signs.
        """
        raw = raw.to(at_least_float32(raw))
        if self.by_term is None:
            assert self.whole is not None  # noqa: S101 - one of the two
            return self.whole(raw)
        terms = [term.sign * self.by_term(Moments(*sums)) for term, sums in zip(relation, raw, strict=True)]
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


NORMALIZATIONS.register("max", Normalization(_by_max, in_unit_interval=True))
NORMALIZATIONS.register("neuron", Normalization(_by_neuron, in_unit_interval=True))
NORMALIZATIONS.register("mean", Normalization(_by_mean))
NORMALIZATIONS.register("none", Normalization(_as_it_is))
NORMALIZATIONS.register("cosine", Normalization(by_term=Moments.cosine, in_unit_interval=True))
NORMALIZATIONS.register("centered", Normalization(by_term=Moments.centered))
NORMALIZATIONS.register("lift", Normalization(by_term=Moments.lift))
