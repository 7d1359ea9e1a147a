import itertools

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.measure.energy import E_AC, E_MAC, Operations, measure_operations


def fan_out(spikes: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> int:
    """Connections of the spikes [N, C, H, W], one spike and kernel position at a time; outputs are of `size`."""
    count = 0
    for _, _, *place in spikes.nonzero().tolist():
        for position in itertools.product(*map(range, conv.kernel_size)):
            geometry = zip(place, position, conv.stride, conv.padding, conv.dilation, size, strict=True)
            hits = [(at + pad - k * wide, stride, limit) for at, k, stride, pad, wide, limit in geometry]
            reached = all(value % stride == 0 and 0 <= value // stride < limit for value, stride, limit in hits)
            count += reached * (conv.out_channels // conv.groups)
    return count


class Network(nn.Module):
    """Frames or images -> outputs [T, B, 10]; the second convolution has every option."""

    def __init__(self, height: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.neuron = tg.LIF(height=height)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
        self.neuron2 = tg.LIF()
        self.classifier = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        frames = x if x.dim() == 5 else x[None]
        current = self.first(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        spikes = self.neuron(3 * current.expand(3, *current.shape[1:]))
        spikes = self.neuron2(3 * self.second(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2]))
        return self.classifier(spikes.mean((3, 4)))


@pytest.mark.parametrize("height", [1.0, 0.3])
def test_operations_counted_one_by_one(height: float) -> None:
    torch.manual_seed(0)
    network, images = Network(height), torch.randn(2, 1, 7, 7)
    seen: dict[str, Tensor] = {}
    for name in ("second", "classifier"):
        network.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    measured = measure_operations(network, images)
    network(images)
    spikes, currents = seen["second"]
    assert 0.05 < (spikes != 0).float().mean() < 0.95
    inside = fan_out(torch.ones(1, 1, 7, 7), network.first, (7, 7))
    assert list(measured) == ["first", "second", "classifier"]
    assert measured["first"] == Operations(macs=inside)
    assert inside == 4 * (7 * 3 - 2) ** 2
    assert measured["second"] == Operations(acs=fan_out(spikes, network.second, currents.shape[2:]) / 2)
    assert measured["classifier"] == Operations(acs=10 * (seen["classifier"][0] != 0).sum().item() / 2)


def test_a_relu_network_multiplies_everywhere() -> None:
    model = tg.models.resnet(blocks=[1], width=4, neuron=nn.ReLU, time_steps=1)
    measured = measure_operations(model, torch.randn(3, 3, 6, 6))
    assert all(each.acs == 0 and each.macs > 0 for each in measured.values())
    assert measured["stages.0.0.shortcut"].macs == 4 * 4 * 36
    assert measured["classifier"].macs == 4 * 10


def test_the_first_layer_alone_multiplies_in_a_spiking_network() -> None:
    torch.manual_seed(0)
    model = tg.models.resnet19(width=4, time_steps=3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    a = tg.attach(model, torch.randn(1, 3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    measured = measure_operations(model, images)
    assert [name for name, each in measured.items() if each.macs] == ["conv"]
    assert len(measured) == len(a.pairs) + 2
    frames = measure_operations(model, images.expand(3, *images.shape))
    assert frames["conv"].macs == 3 * measured["conv"].macs, "a still image's current is computed once"
    assert model.training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_energy_is_that_of_the_constants() -> None:
    assert (E_MAC, E_AC) == (4.6, 0.9)
    total = Operations(macs=2.0) + Operations(acs=10.0)
    assert total.energy == pytest.approx(2 * 4.6 + 10 * 0.9)


def test_a_model_without_synapses() -> None:
    with pytest.raises(ValueError, match="Sequential uses no convolution"):
        measure_operations(nn.Sequential(nn.ReLU()), torch.zeros(1, 1, 2, 2))
