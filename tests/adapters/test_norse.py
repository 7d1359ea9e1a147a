"""Gradient scaling attached to networks of Norse: cells called step by step, its sequential modules, its containers."""

from functools import partial

import networks
import norse.torch as norse
import pytest
import stepping
import torch
from norse.torch.functional.lif_refrac import LIFRefracParameters
from norse.torch.functional.reset import reset_subtract
from stepping import NETWORKS, TIMES, Style, build, frames
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

import reference
import tracegrad as tg


class Passing:
    """The states are passed to the cells and come back from them; None starts a sequence."""

    def __init__(self, _: nn.Module) -> None:
        self.states: dict[nn.Module, object] = {}

    def __call__(self, cell: nn.Module, current: Tensor) -> Tensor:
        spikes, self.states[cell] = cell(current, self.states.get(cell))
        return spikes.to(current.dtype)


def detach(model: nn.Module) -> None:
    states = model.fire.states
    states.update({cell: tree_map(Tensor.detach, state) for cell, state in states.items()})


def parameters(kind: type, **others) -> object:
    """Fast dynamics, a low threshold, and a smooth surrogate: spikes and gradients within few steps."""
    tau = {"tau_mem_inv": torch.tensor(500.0), "v_th": torch.tensor(0.3), "alpha": torch.tensor(1.0)}
    return kind(**(tau | others))


lif = parameters(norse.LIFParameters, method="super")
box = parameters(norse.LIFBoxParameters, method="super")
STYLES = {
    "LIFBoxCell": Style(lambda: norse.LIFBoxCell(box), Passing),
    "LIFBoxCell-soft": Style(lambda: norse.LIFBoxCell(box._replace(reset_method=reset_subtract)), Passing),
    "LIFCell": Style(lambda: norse.LIFCell(lif), Passing),
    "LIFRefracCell": Style(lambda: norse.LIFRefracCell(LIFRefracParameters(lif, torch.tensor(1))), Passing),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_time = pytest.mark.parametrize("time", TIMES)
every_loop = pytest.mark.parametrize("loop", ["inside", "outside"])
every_style = pytest.mark.parametrize("style", STYLES)
T = 8  # a cell with a synaptic current answers one step later


def model_of(name: str, loop: str, style: str = "LIFBoxCell") -> nn.Module:
    return build(name, loop, STYLES[style])


@every_network
@every_loop
@every_style
def test_gradients(name: str, loop: str, style: str) -> None:
    stepping.shows_exact_gradients(model_of(name, loop, style), name, frames(name, T))


@every_network
@pytest.mark.parametrize("style", ["LIFBoxCell", "LIFCell"])
@pytest.mark.parametrize("method", [{"time": "mean"}, {"time": "final"}, {"alpha": 0.7, "normalize": "neuron"}])
def test_gradients_with_other_options(name: str, style: str, method: dict) -> None:
    stepping.shows_exact_gradients(model_of(name, "inside", style), name, frames(name, T), **method)


@every_network
@every_time
def test_alpha_zero_is_the_untouched_model(name: str, time: str) -> None:
    stepping.shows_alpha_zero_is_the_untouched_model(model_of(name, "inside"), name, frames(name, T), time)


@every_network
@every_loop
def test_spikes_outputs_and_names_stay_and_detach_restores(name: str, loop: str) -> None:
    stepping.shows_that_nothing_else_changes(model_of(name, loop), name, frames(name, T), "mean")


@every_time
def test_micro_batches_add_up_to_the_sum_of_their_own_scaled_gradients(time: str) -> None:
    stepping.shows_micro_batches_add_up(model_of("residual", "outside"), "residual", frames("residual", T), time)


@every_time
def test_checkpoints_change_no_gradient(time: str) -> None:
    model = model_of("residual", "inside")
    stepping.shows_checkpoints_change_no_gradient(model, "residual", frames("residual", T), time)


def test_a_checkpoint_around_each_call_of_the_model_changes_no_gradient() -> None:
    """With truncated back-propagation, so that a sequence goes on behind steps that were computed anew."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = norse.SequentialState(
                *(nn.Linear(5, 6), norse.LIFBoxCell(box), nn.Linear(6, 4), norse.LIFBoxCell(box))
            )

        def forward(self, x: Tensor, state: list | None) -> tuple[Tensor, list]:
            return self.layers(x, list(state) if state else None)

    torch.manual_seed(0)
    model, x = Net().double(), torch.rand(T, 3, 5, dtype=torch.float64).round() * 2
    tg.attach(model, (x[0], None), spiking_input=True, alpha=0.5)
    found = []
    for call in (model, lambda *inputs: checkpoint(model, *inputs, use_reentrant=False)):
        model.zero_grad()
        state = None
        for half in x.chunk(2):
            outputs = []
            for frame in half:
                spikes, state = call(frame, state)
                outputs.append(spikes)
            reference.loss_of(torch.stack(outputs).double()).backward()
            state = [each and tree_map(Tensor.detach, each) for each in state]
        found.append({name: value.grad.clone() for name, value in model.named_parameters()})
    reference.assert_same(found[1], found[0], 1e-12)


@every_time
def test_autocast(time: str) -> None:
    stepping.shows_autocast(model_of("residual", "inside"), "residual", frames("residual", T), time)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile's own
@pytest.mark.parametrize("time", ["per_step", *(pytest.param(time, marks=pytest.mark.slow) for time in TIMES[1:])])
def test_compiled(time: str) -> None:
    model = model_of("convolutional", "inside")
    stepping.shows_the_compiled_model_is_as_exact(model, "convolutional", frames("convolutional", 3), time)


@pytest.mark.parametrize("style", ["LIFBoxCell", "LIFCell"])
def test_truncated_backpropagation(style: str) -> None:
    model = model_of("residual", "outside", style)
    stepping.shows_truncated_backpropagation(model, "residual", frames("residual", 2 * T), detach)


@pytest.mark.parametrize("time", ["mean", "final"])
def test_truncated_backpropagation_needs_per_step(time: str) -> None:
    model = model_of("residual", "outside")
    stepping.shows_that_truncation_needs_per_step(model, "residual", frames("residual", T), time, detach)


@every_time
def test_a_forgotten_reset_is_an_error(time: str) -> None:
    model = model_of("residual", "outside")
    stepping.shows_that_a_forgotten_reset_is_an_error(model, "residual", frames("residual", T), time)


def test_three_epochs_on_digits() -> None:
    stepping.shows_training_on_digits(STYLES["LIFBoxCell"])


# Modules that take all steps at once


class AllSteps(nn.Module):
    """Norse's neuron on all steps, without its state."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, currents: Tensor) -> Tensor:
        return self.neuron(currents)[0].to(currents)


class Sequential(nn.Module):
    """The convolutional network in Norse's container: Lift runs a layer step by step, LIF takes all steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        lift = norse.Lift
        self.layers = norse.SequentialState(
            *(lift(network.stem), lift(network.norm0), network.neuron0, lift(network.hidden)),
            *(lift(network.norm1), network.neuron1),
        )
        self.head = network.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[0].to(x).mean((3, 4)))


@every_time
def test_lifted_synapses_and_neurons_of_all_steps(time: str) -> None:
    torch.manual_seed(0)
    network = stepping.Convolutional(partial(norse.LIF, lif)).double()
    twin, x = stepping.Convolutional(lambda: AllSteps(norse.LIF(lif))).double(), frames("convolutional", T)
    twin.load_state_dict(network.state_dict())
    truth = reference.run(twin, x, neuron=None, time=time)
    model = Sequential(network)
    attachment = tg.attach(model, x[:3], time=time)
    assert attachment.pairs == [("layers.3.lifted_module", "layers.5")]
    reference.loss_of(model(x)).backward()
    ours = {name: value.grad for name, value in network.named_parameters()}
    reference.assert_same(ours, truth.gradients, 1e-10)
    assert truth.spikes["neuron1"].any(), "the case is void"


@every_time
def test_neurons_of_all_steps_behind_folded_synapses(time: str) -> None:
    torch.manual_seed(0)
    model, x = networks.Residual(lambda: AllSteps(norse.LIF(lif))).double(), frames("residual", T)
    truth = reference.run(model, x, neuron=None, time=time)
    attachment = tg.attach(model, x, time=time, spiking_input=True)
    assert sorted(attachment.pairs) == [(a, f"{b}.neuron") for a, b in truth.pairs]
    reference.assert_gradients(model, x, truth)


def test_a_container_of_cells_and_what_does_not_fire() -> None:
    model = norse.SequentialState(
        nn.Conv2d(1, 4, 3), norse.LIFCell(), nn.Conv2d(4, 4, 3), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(64, 3),
        norse.LICell(),
    )  # fmt: skip
    attachment = tg.attach(model, torch.rand(2, 1, 8, 8))
    assert attachment.pairs == [("2", "3")]
    reasons = dict(attachment.skipped)
    assert "its input is the data" in reasons["0"]
    assert "no post-synaptic neuron" in reasons["5"], "a leaky integrator does not fire"


def test_a_state_that_goes_on_into_another_call_with_all_steps_is_an_error() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.neuron = nn.Linear(5, 3), norse.LIF(lif)

        def forward(self, x: Tensor, state: object = None) -> tuple[Tensor, object]:
            return self.neuron(self.linear(x), state)

    model, x = Net(), torch.rand(T, 2, 5).round()
    assert tg.attach(model, x, spiking_input=True).pairs == [("linear", "neuron")]
    for _ in range(2):
        spikes, state = model(x)
        spikes.sum().backward()
    with pytest.raises(RuntimeError, match="neuron neuron goes on with the state of an earlier call"):
        model(x, tree_map(Tensor.detach, state))
