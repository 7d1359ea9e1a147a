"""Event kernels in networks of all libraries: with and without gradient scaling, by their twins and as they are."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from contract.cases import Case, cases, every_time, is_both
from contract.signals import inputs_and_spikes
from reference import assert_differ, assert_near, assert_same


def skip_graded(case: Case, model: nn.Module) -> None:
    """Spikes of 2 and more are not bits."""
    model = deepcopy(model)  # a call leaves something behind in the neurons
    with inputs_and_spikes(model) as seen:
        case.outputs(model, case.frames().to(next(model.parameters()).dtype))
    if any(bool((x > 1).any()) for name in seen if "neuron" in name for x in seen[name]):
        pytest.skip("it fires several spikes in one step, which take the dense way")


@cases("gradients", all_neurons=True, slow=is_both)
def test_an_accelerated_network_in_float64(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the twins, the same path as in float32."""
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")
    model, x = case.build(), case.frames()
    skip_graded(case, model)
    before = deepcopy(model)
    expected = case.gradients(model, x)
    acceleration = tg.accelerate(model, case.example(model))
    assert acceleration.synapses
    assert_same(case.gradients(model, x), expected, 1e-10)
    assert "by events" in str(acceleration)
    acceleration.detach()
    assert list(model.state_dict()) == list(before.state_dict())
    monkeypatch.setenv("TRACEGRAD_EVENTS", "0")
    assert_same(case.gradients(model, x), expected, 1e-12)


@cases("gradients", slow=is_both)
def test_an_accelerated_network_in_float32(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")
    model, x = case.build().float(), case.frames().float()
    skip_graded(case, model)
    with inputs_and_spikes(model) as spikes:
        expected = case.gradients(model, x)
    acceleration = tg.accelerate(model, case.example(model))
    with inputs_and_spikes(model) as seen:
        found = case.gradients(model, x)
    assert "by events" in str(acceleration)
    assert_equal_spikes(seen, spikes)
    for name, gradient in expected.items():
        assert_near(found[name], gradient, 1e-4, name)


@cases("gradients", all_neurons=True, slow=is_both)
@every_time
def test_scaled_gradients_over_spikes_in_float64(case: Case, time: str) -> None:
    dense, x = case.build(), case.frames()
    skip_graded(case, dense)
    untouched = case.gradients(deepcopy(dense), x)
    over_spikes = deepcopy(dense)
    case.attach(dense, time=time, alpha=0.5, events=False)
    attachment = case.attach(over_spikes, time=time, alpha=0.5, events=True)
    expected = case.gradients(dense, x)
    assert_same(case.gradients(over_spikes, x), expected, 1e-10)
    assert_differ(expected, untouched)
    assert "by events" in str(attachment)


@cases("gradients", slow=is_both)
@every_time
def test_scaled_gradients_over_spikes_in_float32(case: Case, time: str) -> None:
    dense, x = case.build().float(), case.frames().float()
    over_spikes = deepcopy(dense)
    case.attach(dense, time=time, alpha=0.5, events=False)
    case.attach(over_spikes, time=time, alpha=0.5, events=True)
    gradients: list[dict[str, Tensor]] = []
    spikes: list[dict[str, list[Tensor]]] = []
    for model in (dense, over_spikes):
        with inputs_and_spikes(model) as seen:
            gradients.append(case.gradients(model, x))
        spikes.append(seen)
    assert_equal_spikes(*spikes)
    for name, gradient in gradients[0].items():
        assert_near(gradients[1][name], gradient, 1e-4, name)


def assert_equal_spikes(ours: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]]) -> None:
    assert any("neuron" in name for name in theirs)
    for name in (name for name in theirs if "neuron" in name):
        for step, (one, other) in enumerate(zip(ours[name], theirs[name], strict=True)):
            assert torch.equal(one, other), f"{int((one != other).sum())} spikes of {name} differ in call {step}"
