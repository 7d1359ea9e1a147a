"""Weights of steps and examples in every relation, against one correlation for each example."""

import pytest
import torch
from torch import nn

import reference
import tracegrad as tg
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.geometry import LinearGeometry
from tracegrad.core.equations.relation import RELATIONS, TimeMode, relate
from tracegrad.core.equations.signals import SignalReader, SpikeTrain


@pytest.mark.parametrize("name", ["positive", "causal", "anticausal", "stdp", "coincidence", "pre_pre"])
@pytest.mark.parametrize("time", ["per_step", "mean"])
def test_each_product_has_its_weight(name: str, time: TimeMode) -> None:
    generator = torch.Generator().manual_seed(0)
    pre, post = ((torch.rand(5, 3, 4, generator=generator) < 0.4).double() for _ in range(2))
    weights = torch.rand(5, 3, generator=generator).double()
    layer = nn.Linear(4, 4, bias=False).double()
    activity = Activity(
        LinearGeometry(), layer.weight, pre, SpikeTrain(pre), SpikeTrain(post), SignalReader(), weights=weights
    )
    found = relate(RELATIONS[name], time, activity)
    signals = {end: {"spikes": s, "trace": reference.spike_trace(s)} for end, s in (("pre", pre), ("post", post))}
    expected = [
        sum(
            term.sign
            * weights[step, n]
            * tg.correlate(
                signals["pre"][term.pre][step, n : n + 1], signals[term.post_end][term.post][step, n : n + 1], layer
            )
            for term in RELATIONS[name]
            for n in range(3)
        )
        for step in range(5)
    ]
    expected = expected if time == "per_step" else [sum(expected)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
