"""What rules make of the gradient of one synapse, and how much of that other rules and controls explain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.controls import CONTROLS, ControlMemory
from tracegrad.core.equations.events_inside import event_factors, event_gradient, quotient, sums_of_events
from tracegrad.core.equations.expected import cancels, expected_spikes
from tracegrad.core.equations.relation import Relation, relate, relate_moments
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.signals import SignalReader, SpikeTrain
from tracegrad.measure.witness import SeenUse

HALVES = ("first half", "second half")
LEAST = 1e-12
"""The part of a square that is rounding."""


@dataclass(frozen=True)
class Change:
    """What a rule makes of a gradient.

    Attributes:
        relation: normalised, [n, *weight]; of the relation inside the sum, the mean factor of each weight's events.
        gradients: g(G) for each alpha, like the weight.
    """

    relation: Tensor
    gradients: dict[float, Tensor]


class SeenSynapse:
    """One use of a synapse in one batch: its gradient, and what the relation of its ends makes of it.

    Args:
        use: what was seen.
        moments: whether rules need more than R.
    """

    def __init__(self, use: SeenUse, moments: bool) -> None:
        self.use = use
        self.layout = use.geometry.weight_layout
        self._moments = moments
        pre, post = SpikeTrain(use.pre), SpikeTrain(use.post)
        half = use.pre.shape[1] // 2
        self._activities = {
            HALVES[0]: self._activity(SpikeTrain(use.pre[:, :half]), SpikeTrain(use.post[:, :half])),
            HALVES[1]: self._activity(SpikeTrain(use.pre[:, half:]), SpikeTrain(use.post[:, half:])),
            "none": self._activity(pre, post),
            "other_image": self._activity(pre, CONTROLS["other_image"].post_train(post)),
            "counts": self._activity(*(SpikeTrain(expected_spikes(end)) for end in (use.pre, use.post))),
        }
        steps = zip(use.pre, use.gradient, strict=True)
        self.gradients = [use.geometry.correlate(x, gradient, use.weight) for x, gradient in steps]
        self.gradient = torch.stack(self.gradients).sum(0)
        self._sums: dict[str, list[Tensor]] = {}
        self._relation: Relation | None = None

    def _activity(self, pre: SpikeTrain, post: SpikeTrain) -> Activity:
        arrived = self.use.pre if pre.spikes.shape == self.use.pre.shape else pre.spikes
        return Activity(self.use.geometry, self.use.weight, arrived, pre, post, SignalReader())

    def change(self, rule: Rule, ends: str, alphas: Sequence[float]) -> Change:
        """What a rule makes of the gradient.

        Args:
            rule: with any alpha.
            ends: whose relation: that of all examples ("none"), of half of them, or of a control of signals.
            alphas: its strengths.
        """
        if rule.apply == "event":
            return self._change_inside(rule, ends, alphas)
        memory = ControlMemory(self.use.synapse, 0)
        raw = [rule.controlled(each, self.layout, memory) for each in self._raw(rule, ends)]
        hats = [rule.normalized(each, self.layout, memory) for each in raw]
        if ends == "counts" and cancels(rule.relation):  # what is left is rounding
            hats = [torch.zeros_like(hat) for hat in hats]
        parts = self.gradients if rule.time == "per_step" else [self.gradient]
        scaled: dict[float, Tensor] = {}
        for alpha in alphas:
            pairs = zip(parts, hats, strict=True)
            scaled[alpha] = torch.stack([rule.scaling(g.to(hat), hat, alpha, self.layout) for g, hat in pairs]).sum(0)
        return Change(torch.stack(hats), scaled)

    def _change_inside(self, rule: Rule, ends: str, alphas: Sequence[float]) -> Change:
        activity = self._activities[ends]
        mean, factors = quotient(*sums_of_events(rule.relation, activity)), event_factors(rule.relation, activity)
        scaled: dict[float, Tensor] = {}
        if alphas:
            inside = quotient(event_gradient(rule.relation, activity, self.use.gradient), mean)
            scaled = {alpha: (1 - alpha) * self.gradient + alpha * inside for alpha in alphas}
        return Change(quotient(factors, mean), scaled)

    def _raw(self, rule: Rule, ends: str) -> list[Tensor]:
        """R, or the moments of its terms, as `Rule.relate` gives it."""
        if self._relation != rule.relation:  # those of one relation at a time: they take memory
            self._relation = rule.relation
            self._sums.clear()
        steps = self._per_step(rule.relation, ends)
        if self._moments and not rule.needs_moments:
            signs = [term.sign for term in rule.relation]
            steps = [torch.stack([s * term[0] for s, term in zip(signs, step, strict=True)]).sum(0) for step in steps]
        if rule.time == "per_step":
            return steps
        return [steps[-1] if rule.time == "final" else torch.stack(steps).mean(0)]

    def _per_step(self, relation: Relation, ends: str) -> list[Tensor]:
        if ends not in self._sums and ends == "none":  # sums over examples are those over both halves of them
            halves = zip(*(self._per_step(relation, half) for half in HALVES), strict=True)
            self._sums[ends] = [first + second for first, second in halves]
        elif ends not in self._sums:
            of_terms = relate_moments if self._moments else relate
            self._sums[ends] = of_terms(relation, "per_step", self._activities[ends])
        return self._sums[ends]

    def turned(self, gradient: Tensor) -> Tensor:
        """The part of each filter's gradient that is at a right angle to what it was, [outputs, ...], in float64."""
        before, after = self._filters(self.gradient), self._filters(gradient)
        size = before.square().sum(1, keepdim=True)
        along = (after * before).sum(1, keepdim=True) / torch.where(size > 0, size, 1)
        return after - along * before

    def angles(self, gradient: Tensor) -> Tensor:
        """Between each filter's gradient and what it was, in degrees; of those filters that have one."""
        before, after = self._filters(self.gradient), self._filters(gradient)
        along = (after * before).sum(1) / before.norm(dim=1)
        return torch.rad2deg(torch.atan2(self.turned(gradient).norm(dim=1), along))[before.norm(dim=1) > 0]

    def _filters(self, x: Tensor) -> Tensor:
        return self.layout.outputs_first(x).flatten(1).double()


def explained(by: Tensor, relation: Tensor) -> float:
    """The share of a relation that another one explains: r^2 over weights, a mean over those steps where it varies.

    0 where the other one does not vary; NaN where the relation itself does not, at any step.
    """
    x, y = (each.flatten(1).double() for each in (by, relation))
    sizes = [each.square().sum(1) for each in (x, y)]
    x, y = (each - each.mean(1, keepdim=True) for each in (x, y))
    x_varies, y_varies = (each.square().sum(1) > LEAST * size for each, size in zip((x, y), sizes, strict=True))
    r2 = (x * y).sum(1).square() / (x.square().sum(1) * y.square().sum(1)).clamp(min=torch.finfo(x.dtype).tiny)
    r2 = torch.where(x_varies, r2, 0.0)[y_varies]
    return float(r2.mean()) if len(r2) else math.nan


def shared(by: Tensor, change: Tensor, size: float) -> float:
    """The squared cosine between what two rules turn; 0 where the other turns nothing, NaN where the rule itself does.

    Args:
        by: `SeenSynapse.turned` of the other one.
        change: of the rule.
        size: of the gradient itself, squared.
    """
    sizes = float(by.square().sum()), float(change.square().sum())
    if sizes[1] <= LEAST * size:
        return math.nan
    return float((by * change).sum()) ** 2 / (sizes[0] * sizes[1]) if sizes[0] > LEAST * size else 0.0
