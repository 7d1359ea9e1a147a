"""How gradients are scaled: Eqs. 6 and 7 with everything chosen that they leave open."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Literal

import torch
from torch import Tensor

from tracegrad.core.compiled import common_order, compiled, flatten_steps, unflatten_steps, worth_compiling
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.controls import NO_CONTROL, Control, ControlMemory
from tracegrad.core.equations.events_inside import event_gradient, quotient
from tracegrad.core.equations.normalization import OF_RELATIONS, Normalization
from tracegrad.core.equations.relation import Relation, TimeMode, relate, relate_moments
from tracegrad.core.equations.scaling import Scaling, ScalingFunction, linear
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.equations.weight_layout import WeightLayout

Apply = Literal["outside", "event"]


@dataclass(frozen=True)
class Rule:
    """How gradients are scaled.

    Attributes:
        alpha: of Eq. 7.
        relation: the terms of Eq. 6.
        normalize: from R to R_hat.
        scaling: g(G, R_hat).
        time: which R scales which part of the gradient.
        relation_batch: the fraction of the batch that the relation is computed of.
        inverted: 1 - R_hat replaces R_hat.
        apply: whether the relation stands outside of the gradient's sum over events, or inside.
        control: what is taken out of the relation.
        factor: of the gradient, which then has no relation.
    """

    alpha: float
    relation: Relation
    normalize: Normalization
    scaling: Scaling
    time: TimeMode
    relation_batch: float = 1.0
    inverted: bool = False
    apply: Apply = "outside"
    control: Control = NO_CONTROL
    factor: float | None = None

    @property
    def needs_whole_sequence(self) -> bool:
        """Whether all steps of a sequence must await one backward pass."""
        return self.time != "per_step" or self.control.counts

    @property
    def needs_moments(self) -> bool:
        """Whether R alone does not suffice to normalise it."""
        return self.normalize.by_term

    def relate(self, time: TimeMode, activity: Activity) -> list[Tensor]:
        """R, or the moments of its terms, as the normalisation needs it."""
        of_terms = relate_moments if self.needs_moments else relate
        return of_terms(self.relation, time, activity)

    def controlled(self, raw: Tensor, layout: WeightLayout, memory: ControlMemory) -> Tensor:
        """What the control leaves of what `relate` gives for one step, or for all; `layout` is that of the weight."""
        change = self.control.relation
        if change is None:
            return raw
        if not self.needs_moments:
            raw = raw.to(at_least_float32(raw))
            return layout.from_matrices(change(layout.matrices(raw), memory), raw.shape)
        terms = [(layout.from_matrices(change(layout.matrices(term[0]), memory), term[0].shape), term) for term in raw]
        return torch.stack([torch.cat([product[None], term[1:]]) for product, term in terms])

    def normalized(self, raw: Tensor, layout: WeightLayout, memory: ControlMemory) -> Tensor:
        """R_hat of R of one step, or of all, and what the control leaves of it."""
        hat = self.normalize(raw, self.relation, layout)
        if self.control.normalized is not None:
            hat = layout.from_matrices(self.control.normalized(layout.matrices(hat), memory), hat.shape)
        return 1 - hat if self.inverted else hat

    def sample_size(self, batch: int) -> int:
        """How many of the examples the relation is computed of."""
        return math.ceil(self.relation_batch * batch)

    def with_events(self, gradient: Tensor, activity: Activity, steps: Tensor, mean: Tensor) -> Tensor:
        """The gradient with the relation inside its sum, event by event; in the relation's precision, float32 at least.

        Args:
            gradient: G, like the weight.
            activity: at both ends.
            steps: dL/dz, [T, N, ...].
            mean: factor over all events.
        """
        inside = quotient(event_gradient(self.relation, activity, steps), mean)
        return (1 - self.alpha) * gradient.to(inside.dtype) + self.alpha * inside

    def scaled_sum(
        self, gradients: Sequence[Tensor], raw: Sequence[Tensor], layout: WeightLayout, memory: ControlMemory
    ) -> Tensor:
        """The sum of g(G, R_hat) over what is scaled one by one, in the relation's precision, float32 at least.

        Args:
            gradients: G, weight-shaped: one for each step, or one for all.
            raw: R before it is normalised, as many.
            layout: of the weight.
            memory: of the control.
        """
        tensors = (*gradients, *raw)
        fast = self._can_compile(raw[0], layout) and worth_compiling(sum(x.numel() for x in tensors))
        order = common_order(tensors) if fast else None
        if order is None:
            scaling = partial(self.scaling, layout=layout)
            normalized = partial(self.normalized, layout=layout, memory=memory)
            return _scaled_sum(scaling, normalized, len(raw), self.alpha, *tensors)
        # A tensor, so that one compiled pass serves every alpha.
        alpha = torch.tensor(self.alpha, dtype=at_least_float32(raw[0]), device=raw[0].device)
        normalize = _inverted(self.normalize.function) if self.inverted else self.normalize.function
        run = compiled(_scaled_sum, self.scaling.function, normalize, len(raw))
        steps = run(alpha, *(flatten_steps(x, order) for x in tensors))
        return unflatten_steps(steps, raw[0], order)

    def _can_compile(self, raw: Tensor, layout: WeightLayout) -> bool:
        """Not what a user registered, which a compiler may not follow; gradients of gradients need autograd."""
        known = self.scaling.function is linear and self.normalize in OF_RELATIONS.values()
        in_rows = raw.dim() > 1 and not (layout.inputs_first and self.normalize.outputs_first)
        return known and in_rows and self.control.normalized is None and not torch.is_grad_enabled()


def _scaled_sum(
    scaling: ScalingFunction, normalize: Callable[[Tensor], Tensor], steps: int, alpha: float, *tensors: Tensor
) -> Tensor:
    relations = [normalize(raw.to(at_least_float32(raw))) for raw in tensors[steps:]]
    parts = [
        scaling(gradient.to(relation.dtype), relation, alpha)
        for gradient, relation in zip(tensors[:steps], relations, strict=True)
    ]
    return reduce(torch.add, parts)


@cache  # what is compiled is known by its function
def _inverted(normalize: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def inverted(raw: Tensor) -> Tensor:
        return 1 - normalize(raw)

    return inverted
