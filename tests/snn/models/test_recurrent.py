from functools import partial

import pytest
import torch
from torch import nn

import tracegrad as tg
from reference import lif


def test_parameters_and_pairs() -> None:
    model = tg.models.recurrent(num_classes=20, in_channels=700, hidden=128, layers=2)
    by_hand = (700 * 128 + 128 + 128 * 128) + (128 * 128 + 128 + 128 * 128) + 128 * 20 + 20
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand
    a = tg.attach(model, torch.zeros(3, 1, 700), spiking_input=True)
    assert a.pairs == [(f"layers.{n}.{name}", f"layers.{n}.neuron") for n in (0, 1) for name in ("input", "recurrent")]
    assert [name for name, _ in a.skipped] == ["classifier"]


def test_a_real_input_leaves_the_first_input_layer_unscaled() -> None:
    a = tg.attach(tg.models.recurrent(num_classes=2, in_channels=3, hidden=4), torch.randn(3, 1, 3))
    assert [name for name, _ in a.pairs] == ["layers.0.recurrent"]
    assert [name for name, _ in a.skipped] == ["layers.0.input", "classifier"]


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_time_is_that_of_the_sequence(steps: int) -> None:
    assert tg.models.recurrent(num_classes=5, in_channels=3, hidden=4)(torch.randn(steps, 2, 3)).shape == (steps, 2, 5)


def test_without_recurrent_weights_the_neurons_are_those_of_a_whole_sequence() -> None:
    torch.manual_seed(0)
    model = tg.models.recurrent(num_classes=5, in_channels=3, hidden=8).double()
    layer = model.layers[0]
    nn.init.zeros_(layer.recurrent.weight)
    sequence = torch.randn(20, 4, 3, dtype=torch.float64)
    assert torch.equal(layer(sequence), lif(layer.input(sequence)))
    nn.init.eye_(layer.recurrent.weight)
    assert not torch.equal(layer(sequence), lif(layer.input(sequence)))


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_the_values_of_lif_neurons_are_taken_over(reset: str) -> None:
    leak = nn.Parameter(torch.full((4,), 0.7))
    model = tg.models.recurrent(
        num_classes=2, in_channels=3, hidden=4, neuron=partial(tg.LIF, leak, threshold=0.8, reset=reset)
    )
    cell = model.layers[0].neuron
    assert isinstance(cell, tg.LIFCell)
    assert cell.leak is leak
    assert (cell.threshold, cell.reset) == (0.8, reset)
    model(torch.randn(5, 2, 3)).sum().backward()
    assert leak.grad is not None


def test_wrong_input_and_neurons() -> None:
    with pytest.raises(ValueError, match=r"the input must be sequences \[T, B, 3\], not of shape \[2, 3, 8, 8\]"):
        tg.models.recurrent(num_classes=2, in_channels=3)(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="needs neurons that are called step by step, .* not ReLU"):
        tg.models.recurrent(num_classes=2, in_channels=3, neuron=nn.ReLU)
    with pytest.raises(ValueError, match="layers must be at least 1, not 0"):
        tg.models.recurrent(num_classes=2, in_channels=3, layers=0)
