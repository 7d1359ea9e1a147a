"""Neurons that are called step by step against those of a whole sequence."""

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg


def stepped(cell: tg.LIFCell, currents: Tensor) -> Tensor:
    membrane, steps = None, []
    for current in currents:
        spikes, membrane = cell(current, membrane)
        steps.append(spikes)
    return torch.stack(steps)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset": "hard", "rest": -0.2, "initial": 0.3, "height": 2.0},
        {"detach_reset": True, "surrogate": "triangle"},
        {"detach_membrane": True},
    ],
)
def test_a_step_a_call_is_the_whole_sequence(options: dict) -> None:
    currents = torch.randn(7, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    values = {"leak": torch.tensor([0.5, 0.8, 0.9]).double(), "threshold": torch.tensor([0.4, 0.6, 0.8]).double()}
    weights, found = torch.randn(7, 2, 3, 4, dtype=torch.float64), []
    for make, fire in ((tg.LIF, lambda neuron, z: neuron(z)), (tg.LIFCell, stepped)):
        neuron = make(**{name: nn.Parameter(value.clone()) for name, value in values.items()}, **options)
        spikes = fire(neuron, currents)
        gradients = torch.autograd.grad((spikes * weights).sum(), [currents, neuron.leak, neuron.threshold])
        found.append([spikes, *gradients])
    for whole, steps in zip(*found, strict=True):
        torch.testing.assert_close(steps, whole, rtol=1e-12, atol=1e-12)


def test_a_cell_of_neurons_shares_their_parameters() -> None:
    neurons = tg.LIF(leak=nn.Parameter(torch.tensor(0.7)), threshold=0.6, reset="hard", rest=0.1, height=3.0)
    cell = tg.LIFCell.of(neurons)
    assert cell.leak is neurons.leak
    assert torch.equal(stepped(cell, torch.ones(4, 2, 3)), neurons(torch.ones(4, 2, 3)))
    assert tg.LIFCell.of(tg.IF()).leak == 1


def test_the_membrane_of_bf16_currents_is_float32() -> None:
    spikes, membrane = tg.LIFCell()(torch.ones(2, 3, dtype=torch.bfloat16))
    assert (spikes.dtype, membrane.dtype) == (torch.bfloat16, torch.float32)
