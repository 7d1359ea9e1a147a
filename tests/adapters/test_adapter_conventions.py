"""The neurons of the libraries do what their adapters declare; turned round, or made to fire no spikes, they do not."""

import re
from collections.abc import Callable
from functools import partial

import norse.torch as norse
import pytest
import snntorch
import torch
from declared_neurons import T, Transposed
from spikingjelly.activation_based import neuron as jelly
from spikingjelly.activation_based import surrogate
from torch import nn

import tracegrad as tg
from tracegrad.core.conventions.check import check_convention
from tracegrad.core.neurons import convention_of

B, N = 2, 6
Build = Callable[[], nn.Module]


def check(neuron: nn.Module, *arguments) -> None:
    assert convention_of(neuron) is not None, "nothing is checked of a neuron that is not registered"
    check_convention("neuron", neuron, arguments, {})


OVER_TIME: dict[str, Build] = {
    "SpikingJelly IF, soft": partial(jelly.IFNode, step_mode="m", v_reset=None),
    "SpikingJelly LIF": partial(jelly.LIFNode, step_mode="m"),
    "SpikingJelly LIF, detached": partial(jelly.LIFNode, step_mode="m", detach_reset=True),
    "SpikingJelly parametric": partial(jelly.ParametricLIFNode, step_mode="m"),
    "SpikingJelly quadratic": partial(jelly.QIFNode, step_mode="m"),
    "SpikingJelly exponential": partial(jelly.EIFNode, step_mode="m"),
    "SpikingJelly Izhikevich": partial(jelly.IzhikevichNode, step_mode="m"),
    "SpikingJelly PSN": partial(jelly.PSN, T=T),
    "SpikingJelly masked PSN": partial(jelly.MaskedPSN, k=2, T=T, lambda_init=1.0, step_mode="m"),
    "SpikingJelly sliding PSN": partial(jelly.SlidingPSN, k=2, step_mode="m"),
    "Norse IAF": norse.IAF,
    "Norse LIF": norse.LIF,
    "Norse LIFEx": norse.LIFEx,
    "Norse LIFAdEx": norse.LIFAdEx,
    "Norse LSNN": norse.LSNN,
}


@pytest.mark.parametrize("build", OVER_TIME.values(), ids=OVER_TIME)
def test_over_time(build: Build) -> None:
    torch.manual_seed(0)
    for batch in (1, B):
        check(build(), torch.rand(T, batch, N))
    tg.register_neuron(Transposed)
    with pytest.raises(ValueError, match=r"time: declare tg.register_neuron\(Transposed, time_dim=1\)"):
        check(Transposed(build()), torch.rand(B, T, N))


STEP_BY_STEP: dict[str, tuple[Build, tuple]] = {
    "SpikingJelly LIF": (partial(jelly.LIFNode, step_mode="s"), ()),
    "SpikingJelly sliding PSN": (partial(jelly.SlidingPSN, k=2, step_mode="s"), ()),
    "snnTorch Leaky": (partial(snntorch.Leaky, beta=0.9), (torch.zeros(B, N),)),
    "snnTorch Leaky, hidden state": (partial(snntorch.Leaky, beta=0.9, init_hidden=True), ()),
    "snnTorch Leaky, a beta and threshold for each": (
        partial(snntorch.Leaky, beta=torch.rand(N), threshold=torch.rand(N) + 0.5, learn_threshold=True),
        (),
    ),
    "snnTorch Leaky, one winner": (partial(snntorch.Leaky, beta=0.9, inhibition=True), ()),
    "snnTorch Leaky, high spikes": (partial(snntorch.Leaky, beta=0.9, graded_spikes_factor=2.0), ()),
    "snnTorch Synaptic": (partial(snntorch.Synaptic, alpha=0.8, beta=0.9), (None, None)),
    "snnTorch Lapicque": (partial(snntorch.Lapicque, beta=0.9), (torch.zeros(B, N),)),
    "snnTorch Alpha": (partial(snntorch.Alpha, alpha=0.9, beta=0.8), ()),
    "snnTorch RLeaky": (partial(snntorch.RLeaky, beta=0.9, linear_features=N), ()),
    "snnTorch RSynaptic": (partial(snntorch.RSynaptic, alpha=0.9, beta=0.8, linear_features=N), ()),
    "Norse IAFCell": (norse.IAFCell, (None,)),
    "Norse LIFCell": (norse.LIFCell, (None,)),
    "Norse LIFRefracCell": (norse.LIFRefracCell, ()),
    "Norse LSNNCell": (norse.LSNNCell, (None,)),
}


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(("build", "states"), STEP_BY_STEP.values(), ids=STEP_BY_STEP)
def test_step_by_step(build: Build, states: tuple) -> None:
    check(build(), torch.rand(B, N), *states)


def test_a_state_that_an_earlier_call_left_behind() -> None:
    """It has a graph, and another shape than the inputs of the check."""
    neuron = jelly.LIFNode(step_mode="m")
    neuron(torch.rand(T, 3, N, requires_grad=True))
    left = neuron.v
    assert left.grad_fn is not None
    check(neuron, torch.rand(T, 3, N))
    assert neuron.v is left
    tg.register_neuron(Transposed)
    with pytest.raises(ValueError, match="time_dim=1"):
        check(Transposed(neuron), torch.rand(3, T, N))


def test_spikingjellys_surrogates_that_do_not_fire() -> None:
    neuron = jelly.LIFNode(step_mode="m", surrogate_function=surrogate.ATan(spiking=False))
    with pytest.raises(ValueError, match=r"spikes are 0 or of one positive height: make it fire \(.* spiking=True\)"):
        check(neuron, torch.rand(T, B, N))


@pytest.mark.parametrize("mode", ["m", "s"])
def test_the_other_step_mode(mode: str) -> None:
    """A neuron whose declaration says the opposite of what its step mode does."""

    class Node(jelly.LIFNode):
        pass

    if mode == "m":
        tg.register_neuron(Node, step=True, state="v")
        right = r"Node, state='v', time_dim=0\)"
    else:
        tg.register_neuron(Node, state="v")
        right = r"Node, state='v', step=True\)"
    with pytest.raises(ValueError, match=re.compile(right)):
        check(Node(step_mode=mode), torch.rand(T, B, N))
