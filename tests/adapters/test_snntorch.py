"""Gradient scaling attached to networks of snnTorch, with the loop over time in the model or outside of it."""

from functools import partial

import pytest
import snntorch
import stepping
import torch
from snntorch import utils
from stepping import NETWORKS, TIMES, Fire, Style, build, frames
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError, checkpoint

import tracegrad as tg


class Passing:
    """The states are passed to the neurons and come back from them."""

    def __init__(self, network: nn.Module) -> None:
        neurons = [module for module in network.modules() if isinstance(module, snntorch.SpikingNeuron)]
        self.states = {neuron: neuron.reset_mem() for neuron in neurons}

    def __call__(self, neuron: nn.Module, current: Tensor) -> Tensor:
        state = self.states[neuron]
        spikes, *state = neuron(current, *(state if isinstance(state, tuple) else (state,)))
        self.states[neuron] = tuple(state)
        return spikes


def hidden(network: nn.Module) -> Fire:
    """The neurons keep their states, and return them too or not."""
    for module in network.modules():
        if isinstance(module, snntorch.SpikingNeuron):
            module.reset_mem()
    return fire_hidden


def fire_hidden(neuron: nn.Module, current: Tensor) -> Tensor:
    spikes = neuron(current)
    return spikes[0] if isinstance(spikes, tuple) else spikes


def reset_by_utils(network: nn.Module) -> Fire:
    """`snntorch.utils.reset` resets all neurons that were ever built, but no copies of them."""
    utils.reset(network)
    return fire_hidden


def detach(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, snntorch.SpikingNeuron):
            module.mem.detach_()
            if hasattr(module, "syn"):
                module.syn.detach_()


def fast_sigmoid(distance: Tensor) -> Tensor:
    """The library's own surrogates fire in float32, whatever the model's precision."""
    slope = 1 / (1 + 2 * distance.detach().abs()) ** 2
    return (distance.detach() > 0).to(distance) + (distance - distance.detach()) * slope


options = {"threshold": 0.5, "spike_grad": fast_sigmoid}
leaky = partial(snntorch.Leaky, beta=0.8, **options)
STYLES = {
    "Leaky": Style(leaky, Passing),
    "Leaky-zero": Style(partial(leaky, reset_mechanism="zero", reset_delay=False), Passing),
    "Leaky-hidden": Style(partial(leaky, init_hidden=True, learn_beta=True), hidden),
    "Leaky-output": Style(partial(leaky, init_hidden=True, output=True, reset_mechanism="none"), hidden),
    "Synaptic": Style(partial(snntorch.Synaptic, alpha=0.4, beta=0.8, **options), Passing),
    "Synaptic-hidden": Style(partial(snntorch.Synaptic, alpha=0.4, beta=0.8, init_hidden=True, **options), hidden),
    "Lapicque": Style(partial(snntorch.Lapicque, beta=0.8, **options), Passing),
    "Lapicque-hidden": Style(partial(snntorch.Lapicque, beta=0.8, init_hidden=True, **options), hidden),
}

every_network = pytest.mark.parametrize("name", NETWORKS)
every_time = pytest.mark.parametrize("time", TIMES)
every_loop = pytest.mark.parametrize("loop", ["inside", "outside"])
both_styles = pytest.mark.parametrize("style", ["Leaky", "Leaky-hidden"])
every_style = pytest.mark.parametrize("style", STYLES)
T = 4


@every_network
@every_loop
@every_style
def test_gradients(name: str, loop: str, style: str) -> None:
    stepping.shows_exact_gradients(build(name, loop, STYLES[style]), name, frames(name, T))


@every_network
@every_loop
@both_styles
@pytest.mark.parametrize("method", [{"time": "mean"}, {"time": "final"}, {"alpha": 0.7, "normalize": "neuron"}])
def test_gradients_with_other_options(name: str, loop: str, style: str, method: dict) -> None:
    stepping.shows_exact_gradients(build(name, loop, STYLES[style]), name, frames(name, T), **method)


@every_network
@every_time
@both_styles
def test_alpha_zero_is_the_untouched_model(name: str, time: str, style: str) -> None:
    stepping.shows_alpha_zero_is_the_untouched_model(build(name, "inside", STYLES[style]), name, frames(name, T), time)


@every_network
@every_loop
@both_styles
def test_spikes_outputs_and_names_stay_and_detach_restores(name: str, loop: str, style: str) -> None:
    stepping.shows_that_nothing_else_changes(build(name, loop, STYLES[style]), name, frames(name, T), "mean")


@every_time
@every_loop
def test_micro_batches_add_up_to_the_sum_of_their_own_scaled_gradients(time: str, loop: str) -> None:
    model = build("residual", loop, STYLES["Leaky-hidden"])
    stepping.shows_micro_batches_add_up(model, "residual", frames("residual", T), time)


@every_time
def test_checkpoints_change_no_gradient(time: str) -> None:
    model = build("residual", "inside", STYLES["Leaky"])
    stepping.shows_checkpoints_change_no_gradient(model, "residual", frames("residual", T), time)


def test_checkpoints_around_hidden_states_fail_without_scaling() -> None:
    """A recomputed neuron goes on with the membrane that the forward pass left behind."""
    model, x = build("residual", "inside", STYLES["Leaky-hidden"]), frames("residual", T)
    model.segment = lambda step, frame, fire: checkpoint(step, frame, fire, use_reentrant=False)
    with pytest.raises(CheckpointError):
        stepping.gradients(model, x)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile's own
@pytest.mark.parametrize(
    ("style", "time"),
    [
        ("Leaky", "per_step"),
        ("Leaky-hidden", "mean"),
        pytest.param("Leaky", "mean", marks=pytest.mark.slow),
        pytest.param("Leaky", "final", marks=pytest.mark.slow),
        pytest.param("Leaky-hidden", "per_step", marks=pytest.mark.slow),
        pytest.param("Leaky-hidden", "final", marks=pytest.mark.slow),
    ],
)
def test_compiled(style: str, time: str) -> None:
    model, x = build("convolutional", "inside", STYLES[style]), frames("convolutional", 3)
    stepping.shows_the_compiled_model_is_as_exact(model, "convolutional", x, time)


@every_time
def test_autocast(time: str) -> None:
    model = build("residual", "inside", STYLES["Leaky"])
    stepping.shows_autocast(model, "residual", frames("residual", T), time)


@every_network
@pytest.mark.parametrize("style", ["Leaky-hidden", "Synaptic-hidden"])
def test_truncated_backpropagation(name: str, style: str) -> None:
    stepping.shows_truncated_backpropagation(build(name, "outside", STYLES[style]), name, frames(name, T), detach)


@pytest.mark.parametrize("time", ["mean", "final"])
def test_truncated_backpropagation_needs_per_step(time: str) -> None:
    model = build("residual", "outside", STYLES["Leaky-hidden"])
    stepping.shows_that_truncation_needs_per_step(model, "residual", frames("residual", T), time, detach)


@every_time
@both_styles
def test_a_forgotten_reset_is_an_error(time: str, style: str) -> None:
    model = build("residual", "outside", STYLES[style])
    stepping.shows_that_a_forgotten_reset_is_an_error(model, "residual", frames("residual", T), time)


def test_a_recurrent_neuron_and_the_synapse_within_it() -> None:
    """Its spikes and its current count; its own recurrent weights are left alone, with a reason."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron0 = nn.Linear(5, 4), snntorch.RLeaky(beta=0.8, linear_features=4, **options)
            self.second, self.neuron1 = nn.Linear(4, 3), leaky()

        def forward(self, x: Tensor) -> Tensor:
            (spikes, mem), mem1, out = self.neuron0.reset_mem(), self.neuron1.reset_mem(), []
            for frame in x:
                spikes, mem = self.neuron0(self.first(frame), spikes, mem)
                s, mem1 = self.neuron1(self.second(spikes), mem1)
                out.append(s)
            return torch.stack(out)

    attachment = tg.attach(Recurrent(), torch.rand(3, 2, 5).round(), spiking_input=True)
    assert attachment.pairs == [("first", "neuron0"), ("neuron0.recurrent", "neuron0"), ("second", "neuron1")]
    assert not attachment.skipped


@pytest.mark.parametrize(
    "style",
    [
        Style(partial(snntorch.Leaky, beta=0.8), Passing),
        Style(partial(snntorch.Leaky, beta=0.8, init_hidden=True), reset_by_utils),
    ],
    ids=["passing", "hidden"],
)
def test_three_epochs_on_digits(style: Style) -> None:
    stepping.shows_training_on_digits(style)
