"""Where a sequence starts: resets, forgotten resets, other batches, truncated back-propagation, micro-batches."""

import pytest
import torch
from torch import Tensor

from contract.cases import Case, cases, every_time, grads, is_both
from contract.models import Model
from contract.truth import truth
from reference import assert_differ, assert_near, assert_same, loss_of

STEPPING = ("loop-inside", "loop-outside")
RESIDUAL = ("residual",)


def continuing(case: Case) -> Model:
    """A model that starts no sequence by itself."""
    model = case.build()
    model.begins = False
    return model


@cases("forgotten reset")
@every_time
def test_a_forgotten_reset_between_training_steps_is_an_error(case: Case, time: str) -> None:
    model, x = continuing(case), case.frames()
    case.attach(model, time=time)
    expected = case.gradients(model, x)
    with pytest.raises(RuntimeError, match=rf"neuron .*neuron\d goes on with .* call {case.library.reset}"):
        case.gradients(model, x, begin=False)
    assert_same(case.gradients(model, x), expected, 0.0)


@cases("forgotten reset", ways=["at-once"])
def test_a_reset_that_evaluation_forgets_is_an_error_in_training(case: Case) -> None:
    model, x = continuing(case), case.frames()
    case.attach(model)
    for _ in range(2):
        with torch.no_grad():
            case.outputs(model, x, begin=False)
    with pytest.raises(RuntimeError, match=f"call {case.library.reset}"):
        case.gradients(model, x, begin=False)


@cases("traces last", ways=STEPPING)
def test_called_step_by_step_the_traces_last_as_long_as_the_state(case: Case) -> None:
    """Steps without gradients count as steps before: the state goes on, and so do the traces."""
    model, x = continuing(case).eval(), case.frames(time_steps=case.library.time_steps + 3)
    attachment = case.attach(model, record=True)
    case.gradients(model, x)
    whole = attachment.relations.copy()
    with torch.no_grad():
        case.outputs(model, x[:3])
    case.gradients(model, x[3:], begin=False)
    assert whole
    for synapse, relation in whole.items():
        assert_near(attachment.relations[synapse], relation[3:], 1e-12, synapse)


@cases("state from before")
def test_a_state_from_before_attaching_is_an_error(case: Case) -> None:
    model, x = continuing(case), case.frames()
    case.outputs(model, x)
    case.attach(model)
    with pytest.raises(RuntimeError, match=f"call {case.library.reset}"):
        case.gradients(model, x, begin=False)


@cases("another batch")
def test_a_batch_of_another_size_starts_anew_without_a_reset(case: Case) -> None:
    """As the neurons themselves do: nothing of the state is left."""
    model, x = continuing(case), case.frames()
    case.attach(model)
    expected = case.gradients(model, x)
    with torch.no_grad():
        case.outputs(model, case.frames(batch=2))
    assert_same(case.gradients(model, x, begin=False), expected, 0.0)


@cases("resets")
@pytest.mark.parametrize("when", ["before", "after"])
def test_resets_before_or_after_each_call(case: Case, when: str) -> None:
    model, x = continuing(case), case.frames()
    case.attach(model)
    expected = case.gradients(model, x)
    model.begin()
    for _ in range(2):
        for calling in (torch.enable_grad, torch.no_grad):
            if when == "before":
                model.begin()
            model.zero_grad()
            with calling():
                output = case.outputs(model, x, begin=False)
            if output.requires_grad:
                loss_of(output).backward()
                assert_same(grads(model), {name: expected[name] for name in grads(model)}, 0.0)
            if when == "after":
                model.begin()


@cases("micro-batches")
@every_time
def test_micro_batches_add_up_to_the_sum_of_their_own_scaled_gradients(case: Case, time: str) -> None:
    model = case.build()
    batches = [case.frames(), case.frames(batch=2, seed=2)]
    case.attach(model, time=time, alpha=0.5)
    apart = []
    for batch in batches:
        case.gradients(model, batch)
        apart.append({name: value.clone() for name, value in grads(model).items()})
    model.zero_grad()
    for batch in batches:
        loss_of(case.outputs(model, batch)).backward()
    assert_same(grads(model), {name: apart[0][name] + apart[1][name] for name in apart[0]}, 1e-12)


# Truncated back-propagation through time: a backward pass behind each half of a sequence


def halves(case: Case, model: Model, x: Tensor) -> dict[str, Tensor]:
    """The gradients of both halves; the losses add up to `loss_of`."""
    weights = torch.randn(case.outputs(model, x).shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    model.zero_grad()
    model.begin()
    for half, weight in zip(x.chunk(2), weights.chunk(2), strict=True):
        (case.outputs(model, half, begin=False) * weight).sum().backward()
        case.library.detach(model)
    return grads(model)


@cases("truncation", ways=["loop-outside"], all_neurons=True, slow=is_both)
def test_truncated_backpropagation(case: Case) -> None:
    """G of each half by itself, R of traces that run on through both."""
    model, x = continuing(case), case.frames(time_steps=2 * case.library.time_steps)
    expected = truth(case, model, x, cut=True).gradients
    assert_differ(expected, truth(case, model, x).gradients)
    case.attach(model)
    for _ in range(2):
        ours = halves(case, model, x)
        assert_same(ours, {name: expected[name] for name in ours}, 1e-10)


@cases("truncation", ways=STEPPING, networks=RESIDUAL)
@pytest.mark.parametrize("time", ["mean", "final"])
def test_truncated_backpropagation_needs_per_step(case: Case, time: str) -> None:
    model, x = continuing(case), case.frames()
    case.attach(model, time=time)
    with pytest.raises(RuntimeError, match=f"truncated back-propagation .* needs time='per_step', as time='{time}'"):
        halves(case, model, x)


@cases("forgotten reset", ways=["at-once"], networks=RESIDUAL)
@every_time
def test_truncated_backpropagation_with_all_steps_of_a_half_at_once_is_an_error(case: Case, time: str) -> None:
    """The traces of a call start at zero, so the state may not go on."""
    model, x = continuing(case), case.frames(time_steps=2 * case.library.time_steps)
    case.attach(model, time=time)
    with pytest.raises(RuntimeError, match=f"call {case.library.reset}"):
        halves(case, model, x)
