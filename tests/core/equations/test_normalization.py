"""Normalisations that divide the firing rates out: their range, silence, masks, and steps one by one."""

import pytest
import torch
from attaching.models import FORMS, AtOnce, attach, build, frames, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_near, assert_same
from tracegrad.core import compiled as compilation
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.geometry import LinearGeometry
from tracegrad.core.equations.moments import sums_over_examples
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS, relate_moments
from tracegrad.core.equations.signals import SignalReader, SpikeTrain

RATE_FREE = ("cosine", "centered", "lift")
TIMES = ("per_step", "mean", "final")
every_normalisation = pytest.mark.parametrize("normalize", RATE_FREE)
every_time = pytest.mark.parametrize("time", TIMES)


def network(kind: str) -> nn.Module:
    """One synapse from the data to a neuron."""
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1) if kind == "convolution" else nn.Linear(4, 3)

    class OneSynapse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.neuron = layer.double(), tg.LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

    return OneSynapse()


def relation(model: nn.Module, x: Tensor, **options: object) -> Tensor:
    a = tg.attach(model, x, spiking_input=True, record=True, **options)
    model(x).sum().backward()
    a.detach()
    return a.relations["layer"]


@every_normalisation
@every_time
@settings(max_examples=30)
@given(
    st.sampled_from(["convolution", "linear"]),
    st.floats(0, 1),
    st.sampled_from([-3.0, 0.0, 0.5, 5.0]),
    st.sampled_from(["positive", "causal", "anticausal", "coincidence", "stdp"]),
    st.integers(0, 10**6),
)
def test_values_stay_in_their_range(
    normalize: str, time: str, kind: str, rate: float, bias: float, which: str, seed: int
) -> None:
    torch.manual_seed(seed)
    model = network(kind)
    nn.init.constant_(model.layer.bias, bias)
    x = (torch.rand(3, 2, *((2, 5, 4) if kind == "convolution" else (4,))) < rate).double()
    hat = relation(model, x, normalize=normalize, time=time, relation=which)
    assert hat.isfinite().all(), hat
    is_signed = which == "stdp" or normalize == "centered"
    assert is_signed or hat.min() >= 0, hat
    assert normalize == "lift" or hat.abs().max() <= 1, hat
    if not x.any():
        assert not hat.any(), "the input is silent"


def test_independent_ends_have_lift_1_and_correlation_0() -> None:
    """Whatever their rates; `cosine` keeps these: it is sqrt(p q)."""
    generator = torch.Generator().manual_seed(0)
    pre, post = (SpikeTrain((torch.rand(1, 300_000, 2, generator=generator) < rate).double()) for rate in (0.2, 0.6))
    terms = RELATIONS["coincidence"]
    weight = torch.empty(2, 2, dtype=torch.float64)
    activity = Activity(LinearGeometry(), weight, pre.spikes, pre, post, SignalReader())
    (moments,) = relate_moments(terms, "mean", activity)
    expected = {"lift": 1.0, "centered": 0.0, "cosine": (0.2 * 0.6) ** 0.5}
    for name, value in expected.items():
        found = NORMALIZATIONS[name](moments, terms, activity.geometry.weight_layout)
        torch.testing.assert_close(found, torch.full_like(found, value), rtol=0, atol=0.01)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "examples inside"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_sums_over_examples_in_one_compiled_pass(
    layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal, weights = torch.rand(3, 5, 4, 6, 7, dtype=torch.float64).to(dtype), torch.rand(3, 5, dtype=torch.float64)
    if layout == "channels last":
        signal = signal.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 5))
    if layout == "examples inside":
        signal = signal.movedim(1, -1).contiguous().movedim(-1, 1)
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
    expected = torch.stack([torch.einsum("tn,tn...->t...", weights, signal.double() ** power) for power in (1, 2)], 1)
    with torch.no_grad():
        assert_near(sums_over_examples(signal, weights), expected, 1e-12, "the sums")


@every_normalisation
@every_time
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_steps_one_by_one_give_what_all_at_once_give(form: type[AtOnce], normalize: str, time: str) -> None:
    expected, found = build(), build(form)
    attach(expected, normalize=normalize, time=time)
    attach(found, normalize=normalize, time=time)
    assert_same(gradients(found), gradients(expected), 1e-10)


@every_normalisation
@every_time
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("whole", [True, False], ids=["examples", "steps"])
def test_what_a_mask_leaves_out_counts_nowhere(form: type[AtOnce], normalize: str, time: str, whole: bool) -> None:
    """R_hat of a masked batch is that of the examples that count."""
    x = frames()
    kept = torch.tensor([True, False, True])
    mask = kept if whole else kept.expand(len(x), -1)
    masked, small = build(form), build(form)
    a, b = (attach(model, normalize=normalize, time=time, record=True) for model in (masked, small))
    with a.mask(mask):
        masked(x).sum().backward()
    small(x[:, kept]).sum().backward()
    assert a.relations.keys() == b.relations.keys()
    for name, hat in a.relations.items():
        assert_near(hat, b.relations[name], 1e-10, name)


def test_a_normalisation_of_ones_own() -> None:
    tg.register_normalization("test-square")(lambda relation: relation.square())
    model, x = network("linear"), torch.ones(2, 3, 4, dtype=torch.float64)
    nn.init.constant_(model.layer.bias, 1.0)
    torch.testing.assert_close(
        relation(model, x, normalize="test-square"), relation(model, x, normalize="none").square()
    )
    with pytest.raises(ValueError, match="a normalization named 'test-square' is registered already"):
        tg.register_normalization("test-square")(lambda relation: relation)


def test_one_of_ones_own_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may branch on values, which a compiler does not follow."""

    def by_largest(relation: Tensor) -> Tensor:
        largest = relation.abs().max().item()
        return relation / largest if largest > 0 else relation

    tg.register_normalization("test-largest")(by_largest)
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
    expected, found = build(), build()
    attach(expected, normalize="max", time="final")
    attach(found, normalize="test-largest", time="final")
    assert_same(gradients(found), gradients(expected), 1e-10)
