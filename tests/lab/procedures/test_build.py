from dataclasses import replace

import pytest
import torch

from tracegrad.lab.procedures.build import Task, attach_method, build_model
from tracegrad.lab.recipe.parts import Method, Model, Neuron
from tracegrad.lab.runs.run import plan
from tracegrad.lab.studies.checks import check_runs
from tracegrad.snn.neurons import LIF


def test_networks_fit_the_data_and_the_recipe(digits):
    options = Model("resnet", time_steps=3, options={"blocks": [1, 1], "width": 4}, neuron=Neuron(leak=0.5))
    model = build_model(options, 10, 1)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (3, 2, 10)
    neurons = [str(module) for module in model.modules() if isinstance(module, LIF)]
    assert len(neurons) == 5
    assert all("leak=0.5" in neuron for neuron in neurons)


def test_scaling_is_attached_unless_alpha_is_zero(digits):
    model = build_model(Model("resnet", options={"blocks": [1], "width": 4}), 10, 1)
    assert attach_method(Method(alpha=0.0), model, Task.of(digits)) is None
    attachment = attach_method(Method(), model, Task.of(digits))
    assert [name for name, _ in attachment.pairs] == ["stages.0.0.conv1", "stages.0.0.conv2", "stages.0.0.shortcut"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 3}, "unknown field model.options.depth; resnet has block, blocks, norm, width"),
        ({"neuron": None}, "unknown field model.options.neuron"),
        ({"width": "wide"}, "model.options.width must be a valid integer, not 'wide'"),
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"norm": "bn"}, "unknown norm 'bn'; the known ones are .*'tdbn'"),
    ],
)
def test_bad_options_of_the_network_are_errors_of_one_line(tiny, tmp_path, options, message):
    recipe = replace(tiny, model=replace(tiny.model, options=options))
    with pytest.raises(ValueError, match=message) as error:
        check_runs(plan(recipe, tmp_path), [])
    assert "\n" not in str(error.value)


def test_checking_draws_nothing_from_the_random_generator(tiny, tmp_path):
    before = torch.get_rng_state()
    check_runs(plan(tiny, tmp_path), [])
    assert torch.equal(torch.get_rng_state(), before)
