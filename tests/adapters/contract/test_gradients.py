"""Scaled gradients against the reference; what must not change at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from contract.cases import WHOLE, Case, cases, every_time, is_both, is_further_neuron
from contract.truth import truth
from reference import assert_same

OTHER_OPTIONS = [{"time": "mean"}, {"time": "final"}, {"alpha": 0.7, "normalize": "neuron"}]


@cases("gradients", all_neurons=True, slow=is_both)
def test_gradients(case: Case) -> None:
    assert_exact_gradients(case)


@cases("gradients", all_neurons=True, slow=is_further_neuron)
@pytest.mark.parametrize("options", OTHER_OPTIONS, ids=["mean", "final", "alpha-and-normalize"])
def test_gradients_with_other_options(case: Case, options: dict) -> None:
    assert_exact_gradients(case, **options)


def assert_exact_gradients(case: Case, **options: Any) -> None:
    model, x = case.build(), case.frames()
    expected = truth(case, model, x, **options)
    attachment = case.attach(model, **options)
    assert sorted(attachment.pairs) == [("network." + a, "network." + b) for a, b in expected.pairs], str(attachment)
    for spikes in expected.spikes.values():
        assert 0.02 < spikes.count_nonzero() / spikes.numel() < 0.98, "the case is void: no spikes, or nothing else"
    for _ in range(2):  # the second sequence finds nothing of the first
        assert_same(case.gradients(model, x), expected.gradients, 1e-10)


@cases("alpha zero", ways=WHOLE)
@every_time
def test_alpha_zero_is_the_untouched_model(case: Case, time: str) -> None:
    model, x = case.build(), case.frames()
    untouched = case.gradients(deepcopy(model), x)
    case.attach(model, alpha=0.0, time=time)
    assert_same(case.gradients(model, x), untouched, 1e-12)


@cases("nothing else changes")
@every_time
def test_spikes_outputs_and_state_stay_to_the_bit_and_detach_restores(case: Case, time: str) -> None:
    model, x = case.build(), case.frames()
    untouched, held = deepcopy(model), held_by(model)
    attachment = case.attach(model, time=time)
    assert_same_state(model, untouched)
    assert held_by(model) == held, "the example forward pass has left something in the neurons"
    with fired(model) as ours, fired(untouched) as theirs:
        assert torch.equal(case.outputs(model, x), case.outputs(untouched, x)), "outputs differ"
    assert ours.keys() == theirs.keys()
    assert any(spikes.any() for each in theirs.values() for spikes in each), "the case is void: nothing fires"
    for name, spikes in theirs.items():
        assert all(map(torch.equal, ours[name], spikes)), f"{name} fires otherwise"
    assert_same_state(model, untouched)
    attachment.detach()
    assert_same(case.gradients(model, x), case.gradients(untouched, x), 0.0)
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks), "hooks are left"


def assert_same_state(model: nn.Module, untouched: nn.Module) -> None:
    ours, theirs = model.state_dict(), untouched.state_dict()
    assert list(ours) == list(theirs), "the names in state_dict differ"
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), f"{name} in state_dict differs"


def held_by(model: nn.Module) -> dict[str, list[object]]:
    """What the neurons hold in attributes of their own; tensors by their identity."""
    ours = nn.Module().__dict__.keys()
    neurons = {name: module for name, module in model.named_modules() if name.rpartition(".")[2].startswith("neuron")}
    own = {name: {key: x for key, x in vars(module).items() if key not in ours} for name, module in neurons.items()}
    return {
        name: [id(leaf) if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(attributes)]
        for name, attributes in own.items()
    }


@contextmanager
def fired(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """The spikes of every neuron, call by call."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable:
        def hook(_: nn.Module, __: object, output: object) -> None:
            found.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)

        return hook

    neurons = [each for each in model.named_modules() if each[0].rpartition(".")[2].startswith("neuron")]
    handles = [module.register_forward_hook(keep(name)) for name, module in neurons]
    yield found
    for handle in handles:
        handle.remove()
