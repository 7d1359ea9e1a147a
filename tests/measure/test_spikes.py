import pytest
import torch
from torch import nn

from tracegrad.measure.spikes import count_spikes
from tracegrad.snn.models import resnet
from tracegrad.snn.neurons import LIF


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.quiet = LIF(threshold=1e9)
        self.loud = LIF(threshold=0.5, leak=0.0, height=2.0)

    def forward(self, currents):
        return self.quiet(currents) + self.loud(currents) + self.loud(currents)


def test_every_call_of_every_neuron_counts_whatever_the_height():
    with count_spikes(_Twice()) as spikes:
        _Twice()(torch.ones(4, 3, 5))  # another model: not counted
    assert spikes.total == 0
    model = _Twice()
    with count_spikes(model) as spikes:
        model(torch.ones(4, 3, 5))
    assert spikes.per_layer == {"quiet": 0, "loud": 2 * 4 * 3 * 5}
    assert spikes.total == 120


def test_counts_add_up_over_calls_and_stop_after_the_block():
    model = _Twice()
    with count_spikes(model) as spikes:
        model(torch.ones(1, 1, 1))
        model(torch.ones(1, 1, 1))
    model(torch.ones(1, 1, 1))
    assert spikes.total == 4
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_of_a_network_sum_to_the_total_and_outputs_stay():
    torch.manual_seed(0)
    model = resnet(in_channels=1, blocks=(1,), width=4).eval()
    images = torch.randn(2, 1, 8, 8)
    expected = model(images)
    with count_spikes(model) as spikes:
        assert torch.equal(model(images), expected)
    assert list(spikes.per_layer) == ["neuron", "stages.0.0.neuron1", "stages.0.0.neuron2"]
    assert spikes.total == sum(spikes.per_layer.values()) > 0


def test_a_network_without_neurons_is_an_error():
    with pytest.raises(ValueError, match="Linear holds no spiking neuron"), count_spikes(nn.Linear(2, 2)):
        pass
