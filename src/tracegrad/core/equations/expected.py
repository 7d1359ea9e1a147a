"""What is expected of a spike train whose spikes are shuffled in time: its count, spread evenly over its steps."""

from functools import reduce

import torch
from torch import Tensor

from tracegrad.core.equations.activity import like
from tracegrad.core.equations.relation import Relation
from tracegrad.core.equations.signals import SpikeTrain, over_time
from tracegrad.core.equations.trace import at_least_float32, spike_trace


def expected_train(total: Tensor, counted: Tensor, first: int, steps: int) -> SpikeTrain:
    """The expectation of each spike, count / T, and of each trace, (count / T) * sum over j = 0..t of decay^j.

    Args:
        total: the count of each train, [N, ...].
        counted: the steps over which its spikes are shuffled, bool, [T, N], or [T, 1] for all examples.
        first: step of what is wanted.
        steps: how many.
    """
    weights, part = counted.to(total.dtype), slice(first, first + steps)
    spikes, traces = (_at_rate(signal[part], total, weights) for signal in (weights, spike_trace(weights)))
    return SpikeTrain(spikes, traces)


def _at_rate(signal: Tensor, total: Tensor, weights: Tensor) -> Tensor:
    """`signal` of one spike at each counted step, [S, N], times the mean number of spikes there, [S, N, ...]."""
    return like(signal, total[None]) * (total / like(weights.sum(0).clamp(min=1), total))


def expected_spikes(spikes: Tensor, counted: Tensor | None = None) -> Tensor:
    """The expectation of each spike of whole sequences, [T, N, ...], in their precision; `counted`: None for all."""
    if counted is None:
        return over_time(_spread, spikes)
    total = spikes.sum(0, dtype=at_least_float32(spikes))
    weights = counted.to(total.dtype)
    return _at_rate(weights, total, weights).to(spikes.dtype)


def _spread(steps: int, spikes: Tensor) -> Tensor:
    total = reduce(torch.add, [step.to(at_least_float32(step)) for step in spikes])
    return torch.stack([(total / steps).to(spikes.dtype)] * steps)


def all_steps(steps: int, device: torch.device) -> Tensor:
    """`counted` where no step is masked."""
    return torch.ones(steps, 1, dtype=torch.bool, device=device)


def cancels(relation: Relation) -> bool:
    """Whether the terms sum to 0 where spikes are as expected: only how many traces are multiplied counts then."""
    sums = dict[tuple[str, int], int]()
    for term in relation:
        kind = term.post_end, (term.pre, term.post).count("trace")
        sums[kind] = sums.get(kind, 0) + term.sign
    return not any(sums.values())
