"""Normalisations of a relation: R -> R_hat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracegrad.core.equations.moments import Moments
from tracegrad.core.equations.relation import Relation
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.equations.weight_layout import WeightLayout
from tracegrad.core.registry import Registry

OfRelation = Callable[[Tensor], Tensor]
"""R, shaped like the weight -> R_hat."""


@dataclass(frozen=True)
class Normalization:
    """How a relation is normalised: as a whole, or each of its terms by the sums over its ends.

    Attributes:
        function: from R, or, `by_term`, from the `Moments` of a term, to R_hat.
        by_term: whether each term is normalised by itself.
        outputs_first: whether the function needs the outputs in dimension 0, whatever the weight's layout.
        in_unit_interval: whether R_hat lies in [0, 1] where no term of the relation is negative.
        subtracts: whether it takes small differences of sums, which bfloat16 would lose.
    """

    function: Callable[[Any], Tensor]
    by_term: bool = False
    outputs_first: bool = False
    in_unit_interval: bool = False
    subtracts: bool = False

    def __call__(self, raw: Tensor, relation: Relation, layout: WeightLayout) -> Tensor:
        """R_hat, in float32 at least.

        Args:
            raw: R, shaped like the weight, or, `by_term`, [terms, moments, *weight].
            relation: the terms; R_hat of several that are normalised by themselves is their mean, with their signs.
            layout: of the weight.
        """
        raw = raw.to(at_least_float32(raw))
        if self.outputs_first:
            return layout.as_weight(self.function(layout.outputs_first(raw)), raw.shape)
        if not self.by_term:
            return self.function(raw)
        terms = [term.sign * self.function(Moments(*sums)) for term, sums in zip(relation, raw, strict=True)]
        return torch.stack(terms).mean(0)


NORMALIZATIONS: Registry[Normalization] = Registry("normalization")


def register_normalization(name: str, *, outputs_first: bool = False) -> Callable[[OfRelation], OfRelation]:
    """Decorator that makes a function `relation -> relation` available as `normalize=name`.

    The function sees R as it is, shaped like the synapse's weight and in float32 at least: of each step for
    `time="per_step"`, else once.

    Args:
        name: of the normalisation.
        outputs_first: whether the function needs the outputs in dimension 0, `[outputs, inputs, ...]`, where the weight
            has its inputs there (transposed convolutions, `x @ W`), too.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: OfRelation) -> OfRelation:
        NORMALIZATIONS.register(name, Normalization(function, outputs_first=outputs_first))
        return function

    return register


def _by_max(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().amax())


def _by_mean(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().mean())


def _by_neuron(raw: Tensor) -> Tensor:
    """Of each output, which are in dimension 0."""
    return _divide(raw, raw.abs().amax(tuple(range(1, raw.dim())), keepdim=True))


def _as_it_is(raw: Tensor) -> Tensor:
    return raw


def _divide(raw: Tensor, scale: Tensor) -> Tensor:
    # Silent ends make raw and scale zero: the relation is then zero, not NaN.
    return raw / torch.where(scale > 0, scale, 1.0)


OF_RELATIONS = {
    "max": Normalization(_by_max, in_unit_interval=True),
    "mean": Normalization(_by_mean),
    "neuron": Normalization(_by_neuron, outputs_first=True, in_unit_interval=True),
    "none": Normalization(_as_it_is),
}
"""Those that a compiler follows; what a user registers may hold anything."""
OF_MOMENTS = {
    "cosine": Normalization(Moments.cosine, by_term=True, in_unit_interval=True),
    "centered": Normalization(Moments.centered, by_term=True, subtracts=True),
    "lift": Normalization(Moments.lift, by_term=True),
}
for _name, _normalization in (OF_RELATIONS | OF_MOMENTS).items():
    NORMALIZATIONS.register(_name, _normalization)
