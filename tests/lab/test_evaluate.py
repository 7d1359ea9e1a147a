import math

import pytest
import torch
from torch import nn

from tracegrad.lab.evaluate import evaluate, predict
from tracegrad.methods.objectives import last_membrane, mean_over_time
from tracegrad.snn.neurons import LIF


class _Echo(nn.Module):
    """Fires where the pixel is 1, at each of two steps; the image is the class."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.neuron = LIF(leak=0.0)

    def forward(self, images):
        return self.neuron((self.weight * images.flatten(1)).expand(2, -1, -1))


def test_accuracy_and_spikes_by_hand():
    model = _Echo().train()
    images = torch.eye(3).view(3, 1, 1, 3)
    batches = [(images[:2], torch.tensor([0, 2])), (images[2:], torch.tensor([2]))]
    result = evaluate(model, batches, mean_over_time)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.spikes_per_image == 2
    assert result.spikes_per_layer == {"neuron": 2}
    assert model.training


def test_the_readout_decides():
    outputs = torch.tensor([[[3.0, 0.0]], [[0.0, 2.8]]])
    assert predict(outputs, mean_over_time).item() == 0
    assert predict(outputs, last_membrane).item() == 1


def test_nan_and_nothing_are_errors():
    images = torch.zeros(2, 1, 1, 3)
    images[1] = math.nan
    with pytest.raises(ValueError, match="images 0 to 1 hold NaN or infinity"):
        evaluate(_Echo(), [(images, torch.zeros(2, dtype=torch.int64))], mean_over_time)
    with pytest.raises(ValueError, match="no image to evaluate on"):
        evaluate(_Echo(), [], mean_over_time)
