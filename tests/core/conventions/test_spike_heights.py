"""Neurons return spikes, 0 or of one height, unless they were declared graded."""

import re
from collections.abc import Callable

import declared_neurons as neurons
import pytest
import torch
from declared_neurons import check, refused
from torch import Tensor, nn

T, B = neurons.T, 2

NO_SPIKES: dict[str, Callable[[], nn.Module]] = {
    "graded": neurons.Graded,
    "signed": neurons.Signed,
    "several spikes a step": neurons.Counts,
    "membrane": neurons.Membrane,
    "negative": neurons.Inhibitory,
    "ReLU": type("Rectifier", (nn.ReLU,), {}),
    "surrogate": neurons.Surrogate,
}


@pytest.mark.parametrize("build", NO_SPIKES.values(), ids=NO_SPIKES)
def test_what_are_no_spikes(build: Callable[[], nn.Module]) -> None:
    message = refused(build(), torch.rand(T, B, 5), declared={})
    values = r"returns values from -?[\d.e-]+ to -?[\d.e+-]+, but spikes are 0 or of one positive height: "
    assert re.search(values, message), message
    assert message.endswith(
        f"or declare tg.register_neuron({type(build()).__name__}, graded=True) if its spikes are graded"
    )
    check(build(), torch.rand(T, B, 5), declared={"graded": True})


def test_spikes_of_one_step_that_are_none() -> None:
    class Passing(neurons.Stepping):
        def forward(self, current: Tensor) -> Tensor:
            return super().forward(current) * current

    message = refused(Passing(), torch.rand(B, 5), declared={"step": True, "state": "v"})
    assert "tg.register_neuron(Passing, state='v', graded=True, step=True)" in message


@pytest.mark.parametrize(
    ("base", "declared", "remedy"),
    [
        (neurons.BatchFirst, {"time_dim": 1}, "tg.register_neuron(Low, graded=True, time_dim=1)"),
        (
            neurons.ExamplesFolded,
            {"folded": lambda *_: T, "time_dim": 1, "reset": "net.reset()"},
            "tg.register_neuron(Low, reset='net.reset()', graded=True, folded=4, time_dim=1)",
        ),
    ],
)
def test_what_else_was_declared_stays_in_the_remedy(base: type[nn.Module], declared: dict, remedy: str) -> None:
    neuron = type("Low", (base,), {"returned": lambda self, s, u: u})()
    message = refused(neuron, torch.rand(T, T, 5), declared=declared)
    assert f"or declare {remedy} if its spikes are graded" in message


def test_spikes_that_are_returned_last() -> None:
    message = refused(neurons.ReturnsSpikesLast(), torch.rand(T, B, 5), declared={})
    assert message.endswith("return the spikes first; they are element 1 of the tuple that it returns")
