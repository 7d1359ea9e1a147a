import copy

import pytest
import torch
from torch import nn

from tracegrad.core.attaching.attach import attach
from tracegrad.measure.raster import count_neurons, record_rasters
from tracegrad.measure.spikes import count_spikes
from tracegrad.snn.models.resnet import ResNet
from tracegrad.snn.neurons import LIF


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ResNet([1, 1], num_classes=3, in_channels=1, width=4)


@pytest.fixture
def image():
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def spikes_of(model, name, image):
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda *call: found.append(call[2][:, 0]))
    with torch.no_grad():
        model.eval()(image)
    handle.remove()
    return found[0]


ENDS = {
    "stages.0.0.conv2": ("stages.0.0.neuron1", "stages.0.0.neuron2"),
    "stages.1.0.conv1": ("stages.0.0.neuron2", "stages.1.0.neuron1"),
    "stages.1.0.shortcut": ("stages.0.0.neuron2", "stages.1.0.neuron2"),
}


@pytest.mark.parametrize("synapse", ENDS)
def test_spikes_are_the_networks(model, image, synapse):
    raster = record_rasters(model, image)[synapse]
    for end, name in zip((raster.pre, raster.post), ENDS[synapse], strict=True):
        spikes = spikes_of(model, name, image)
        assert 1 <= len(end.places) <= 12
        assert end.spikes.shape == (4, len(end.places))
        assert len(set(map(tuple, end.places.tolist()))) == len(end.places), "a neuron is shown twice"
        for train, place in zip(end.spikes.T, end.places.tolist(), strict=True):
            assert train.tolist() == spikes[(slice(None), *place)].bool().tolist(), place


@pytest.mark.parametrize("synapse", ENDS)
def test_a_weight_connects_the_first_neurons(model, image, synapse):
    raster = record_rasters(model, image)[synapse]
    (_, *pre), (_, *post) = raster.pre.places[0].tolist(), raster.post.places[0].tolist()
    conv = model.get_submodule(synapse)
    for axis in range(2):
        position = pre[axis] + conv.padding[axis] - post[axis] * conv.stride[axis]
        assert 0 <= position < conv.kernel_size[axis], f"{pre} is not in the receptive field of {post}"


def test_other_neurons_fire_and_the_chosen_ones_not_always(model, image):
    raster = record_rasters(model, image)["stages.0.0.conv2"]
    for end in (raster.pre, raster.post):
        assert end.spikes.any(0).all()
        assert 0 < end.spikes[:, 0].sum() < 4


def test_fully_connected_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), LIF(), nn.Linear(20, 9), LIF(), nn.Linear(9, 2))
    frames = 3 * torch.rand(5, 1, 6)
    rasters = record_rasters(model, frames)
    assert list(rasters) == ["2"]
    assert rasters["2"].pre.spikes.shape[0] == 5
    assert count_neurons(model, frames) == {"1": 20, "3": 9}


def test_a_silent_network_shows_silence():
    silent = nn.Sequential(nn.Linear(6, 20), LIF(1.0, 1e9), nn.Linear(20, 9), LIF(), nn.Linear(9, 2, bias=False))
    nn.init.zeros_(silent[2].bias)
    raster = record_rasters(silent, torch.rand(5, 1, 6))["2"]
    for end in (raster.pre, raster.post):
        assert end.spikes.tolist() == [[False]] * 5
        assert len(end.places) == 1


def test_counts_of_neurons_fit_counts_of_spikes(model, image):
    neurons = count_neurons(model, image)
    assert neurons["neuron"] == 4 * 8 * 8
    assert neurons["stages.1.0.neuron2"] == 8 * 4 * 4
    with count_spikes(model) as counter:
        model(image)
    assert neurons.keys() == counter.per_layer.keys()
    assert all(counter.per_layer[name] <= 4 * neurons[name] for name in neurons)


@pytest.mark.parametrize("look", [record_rasters, count_neurons])
def test_the_model_stays_as_it_is(model, image, look):
    attachment = attach(model, image)
    before = copy.deepcopy((model.state_dict(), torch.get_rng_state()))
    look(model, image)
    torch.testing.assert_close((model.state_dict(), torch.get_rng_state()), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    attachment.detach()
