"""The relation inside the sum of a weight's gradient, event by event, as three-factor rules have it (`apply="event"`).

With s what comes in, d = dL/dz, p and q the pre- and the post-synaptic signal of the relation's terms, all at one step:

    dW = (1 - alpha) correlate(s, d) + alpha / c * sum over steps and terms of correlate(s p, d q)

c, the mean of p q over all pairs of an input spike and an output that it reaches, makes the mean factor 1.
"""

from functools import reduce

import torch
from torch import Tensor

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.relation import Relation
from tracegrad.core.equations.trace import at_least_float32


def sums_of_events(relation: Relation, activity: Activity) -> Tensor:
    """The sum of p q over all pairs of an input spike and an output that it reaches, and their number, [2]."""
    geometry, weight, arrived = activity.geometry, activity.weight, _flat(activity.arrived)
    ends = _ends(relation, activity)
    products = [geometry.total(arrived * pre, post, weight) for pre, post in ends]
    one_each = torch.ones_like(ends[0][1][:1])  # the same for every example
    return torch.stack([reduce(torch.add, products), geometry.total(arrived, one_each, weight)])


def event_gradient(relation: Relation, activity: Activity, gradient: Tensor) -> Tensor:
    """The sum over steps and terms of correlate(s p, d q), like the weight; `gradient` is d, [T, N, ...]."""
    arrived, d = _flat(activity.arrived), _flat(gradient)
    parts = [
        activity.geometry.correlate(arrived * pre, d.to(post) * post, activity.weight)
        for pre, post in _ends(relation, activity)
    ]
    return reduce(torch.add, parts)


def event_factors(relation: Relation, activity: Activity) -> Tensor:
    """The mean of p q over the events of each weight, at each step, [T, *weight]; 0 where there is none."""
    correlate, weight, signals = activity.geometry.correlate, activity.weight, _signals(relation, activity)
    found: list[Tensor] = []
    for step, arrived in enumerate(activity.arrived):
        products = [correlate(arrived * pre[step], post[step], weight) for pre, post in signals]
        reached = correlate(arrived, torch.ones_like(signals[0][1][step]), weight)
        found.append(quotient(reduce(torch.add, products), reached))
    return torch.stack(found)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """In float32 at least; 0 where nothing is divided by. One denominator serves all numerators."""
    dtype = at_least_float32(numerator)
    numerator, denominator = numerator.to(dtype), denominator.to(dtype)
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1), 0)


def _signals(relation: Relation, activity: Activity) -> list[tuple[Tensor, Tensor]]:
    """Both signals, `p` and `q`, of each term, [T, N, ...]."""
    return [(activity.read(term.pre, "pre"), activity.read(term.post, term.post_end)) for term in relation]


def _ends(relation: Relation, activity: Activity) -> list[tuple[Tensor, Tensor]]:
    """`_signals`, all steps in one batch."""
    return [(_flat(pre), _flat(post)) for pre, post in _signals(relation, activity)]


def _flat(signal: Tensor) -> Tensor:
    return signal.flatten(0, 1)
