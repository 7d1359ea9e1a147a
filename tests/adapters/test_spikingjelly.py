"""What is peculiar to SpikingJelly: its equations, all of its neurons, its own checkpoints, full graphs."""

import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from contract.cases import Case, every_time
from contract.libraries.spikingjelly import DYNAMICS, SpikingJelly, SpikingJellySteps
from contract.models import Model, ways_of
from contract.truth import truth, twin
from jelly import ElementWiseCase
from spikingjelly.activation_based import functional, memopt, neuron
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reference
from reference import assert_differ, assert_near, assert_same, loss_of

NETWORKS = ("convolutional", "residual")
MODES = {"m": SpikingJelly, "s": SpikingJellySteps}

every_mode = pytest.mark.parametrize("mode", MODES)
every_network = pytest.mark.parametrize("network", NETWORKS)
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS)


def case_of(mode: str, network: str) -> Case:
    """One that is called as a whole: by all steps at once, or with a loop of its own."""
    library = MODES[mode]()
    return Case(library, "LIFNode", ways_of(library)[0], network)


@every_time
@every_dynamics
@pytest.mark.parametrize(
    "case",
    [
        kind(library, "", way, network)
        for library in (SpikingJelly(), SpikingJellySteps())
        for kind, ways, networks in (
            (Case, ways_of(library), NETWORKS),
            (ElementWiseCase, ways_of(library)[:1], ("ADD", "AND", "IAND")),
        )
        for way in ways
        for network in networks
    ],
    ids=str,
)
def test_gradients_against_the_equations_of_its_neurons(case: Case, time: str, dynamics: str) -> None:
    case = type(case)(case.library, dynamics, case.way, case.network)
    model, x = case.build(), case.frames()
    expected = truth(case, model, x, neuron=DYNAMICS[dynamics].fire, time=time)
    attachment = case.attach(model, time=time)
    assert sorted(attachment.pairs) == [("network." + a, "network." + b) for a, b in expected.pairs], str(attachment)
    assert_same(case.gradients(model, x), expected.gradients, 1e-10)


NEURONS = {
    "IFNode": partial(neuron.IFNode, v_threshold=0.3),
    "SimpleIFNode": partial(neuron.SimpleIFNode, v_threshold=0.3),
    "HalfThresholdIFNode": partial(neuron.HalfThresholdIFNode, v_threshold=0.3),
    "ActivationAwareIFNode": partial(neuron.ActivationAwareIFNode, v_threshold=0.3),
    "LIFNode": partial(neuron.LIFNode, v_threshold=0.3, store_v_seq=True),
    "SimpleLIFNode": partial(neuron.SimpleLIFNode, tau=2.0, decay_input=True, v_threshold=0.3),
    "ParametricLIFNode": partial(neuron.ParametricLIFNode, v_threshold=0.3),
    "KLIFNode": partial(neuron.KLIFNode, v_threshold=0.3),
    "ComplementaryLIFNode": partial(neuron.ComplementaryLIFNode, v_threshold=0.3),
    "EIFNode": partial(neuron.EIFNode, v_threshold=0.3),
    "QIFNode": partial(neuron.QIFNode, v_threshold=0.3),
    "IzhikevichNode": partial(neuron.IzhikevichNode, v_threshold=0.3),
    "RAFNode": partial(neuron.RAFNode, v_threshold=0.3),
    "PSN": partial(neuron.PSN, 4),
    "MaskedPSN": partial(neuron.MaskedPSN, 2, 4, lambda_init=1.0),
    "SlidingPSN": partial(neuron.SlidingPSN, 2),
    "GatedLIFNode": partial(neuron.GatedLIFNode, 4),
}
MULTI_STEP_ONLY = {"PSN", "GatedLIFNode"}


@every_mode
@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_that_fires(kind: str, mode: str) -> None:
    """In the reference they take all steps in one call, as some have no other mode."""
    if mode == "s" and kind in MULTI_STEP_ONLY:
        pytest.skip("has no single-step mode")
    library = MODES[mode]({kind: NEURONS[kind]})
    library.example = lambda x: x  # some are built for one T
    case = Case(library, kind, ways_of(library)[0], "residual")
    model, x = case.build(), case.frames()
    plain = twin(case, model, len(x))
    for name in ("neuron1", "neuron2", "neuron3", "neuron4"):
        setattr(plain, name, plain.get_submodule(name).neuron)
    functional.set_step_mode(plain, "m")
    expected = reference.run(plain, x, neuron=None)
    attachment = case.attach(model)
    assert len(attachment.pairs) == 5, str(attachment)
    ours = case.gradients(model, x)
    for parameter, gradient in expected.gradients.items():
        assert_near(ours[parameter], gradient, 1e-10, parameter)
    assert expected.spikes["neuron4"].any(), "the case is void: nothing fires"


# Checkpoints: a neuron that is computed anew goes on with the memory that the forward pass left; in SpikingJelly's own
# checkpoints it does not


class Whole(nn.Module):
    """A model as the only part of another one, in one of PyTorch's checkpoints or as it is."""

    def __init__(self, model: nn.Module, checkpointed: bool = False) -> None:
        super().__init__()
        self.model, self.checkpointed = model, checkpointed

    def begin(self) -> None:
        functional.reset_net(self)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.model, x, use_reentrant=False) if self.checkpointed else self.model(x)


def without_its_own_resets(case: Case) -> Model:
    model = case.build()
    model.begins = False
    return model


def named(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the parameters' names in the network."""
    prefix = re.compile(r"model\.(_checkpoint_wrapped_module\.)?network\.")
    return {prefix.sub("", name): gradient for name, gradient in gradients.items()}


@every_network
@every_time
@every_mode
def test_the_librarys_checkpoints_change_no_gradient(network: str, time: str, mode: str) -> None:
    case = case_of(mode, network)
    plain, x = without_its_own_resets(case), case.frames()
    wrapped = Whole(memopt.checkpoint_module(deepcopy(plain)))
    untouched = case.gradients(deepcopy(plain), x)
    for model in (plain, wrapped):
        case.attach(model, time=time, alpha=0.5)
    expected = case.gradients(plain, x)
    assert_same(named(case.gradients(wrapped, x)), expected, 1e-12)
    assert_differ(expected, untouched)


@every_network
@every_mode
def test_pytorchs_checkpoints_around_neurons_are_wrong_without_scaling(network: str, mode: str) -> None:
    case = case_of(mode, network)
    model, x = without_its_own_resets(case), case.frames()
    right = case.gradients(deepcopy(model), x)
    assert_differ(named(case.gradients(Whole(model, checkpointed=True), x)), right)


@every_network
@every_time
def test_pytorchs_checkpoints_around_neurons_are_refused(network: str, time: str) -> None:
    case = case_of("m", network)
    model, x = Whole(without_its_own_resets(case), checkpointed=True), case.frames()
    case.attach(model, time=time)
    output = case.outputs(model, x)
    with pytest.raises(RuntimeError, match="use the library's own checkpoints"):
        loss_of(output).backward()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of states, by the compiler
@every_network
@every_time
@every_mode
def test_compiled(network: str, time: str, mode: str) -> None:
    """In one graph where no loop goes step by step."""
    torch._dynamo.reset()
    case = case_of(mode, network)
    model, x = without_its_own_resets(case), case.frames()
    untouched = case.gradients(deepcopy(model), x)
    case.attach(model, time=time, alpha=0.5)
    expected = case.gradients(model, x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=mode == "m")
    for _ in range(2):
        assert_same(case.gradients(compiled, x), expected, 1e-10)
    assert_differ(expected, untouched)
