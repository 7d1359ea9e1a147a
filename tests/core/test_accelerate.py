"""Event kernels on a network of one's own: what they serve, what is said, and what they survive."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracegrad as tg

IMAGES = torch.randn(4, 2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Layers of every kind, on [T, B, 3, 12, 10]."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem, self.fire0 = nn.Conv2d(3, 8, 3, padding=1), tg.LIF(threshold=0.3)
            self.strided, self.fire1 = nn.Conv2d(8, 8, 3, stride=2, padding=1), tg.LIF(threshold=0.3)
            self.grouped, self.fire2 = nn.Conv2d(8, 8, 3, padding=1, groups=2), tg.LIF(threshold=0.3)
            self.pool, self.readout = nn.AvgPool2d(2), nn.Linear(8 * 3 * 2, 5)
            self.linear = nn.Linear(8 * 6 * 5, 4)

    def forward(self, images: Tensor) -> Tensor:
        spikes = self.fire0(folded(self.stem, images))
        spikes = self.fire1(folded(self.strided, spikes))
        features = self.linear(spikes.flatten(2))
        spikes = self.fire2(folded(self.grouped, spikes))
        return torch.cat([features, self.readout(folded(self.pool, spikes).flatten(2))], -1)


def folded(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")


def gradients(model: nn.Module, run: nn.Module | None = None) -> list[Tensor]:
    model.zero_grad()
    images = IMAGES.clone().requires_grad_()
    output = (model if run is None else run)(images)
    output.square().sum().backward()
    assert images.grad is not None
    return [output.detach(), images.grad, *(parameter.grad.clone() for parameter in model.parameters())]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_it_says_what_it_serves_and_what_each_call_took() -> None:
    model = Network()
    acceleration = tg.accelerate(model, IMAGES)
    assert acceleration.synapses == ["strided", "linear"]
    assert dict(acceleration.skipped) == {
        "stem": "its input is not spikes",
        "grouped": "no convolution of images or linear layer without groups and dilation",
        "readout": "its input is not spikes",
    }
    assert "strided" in str(acceleration)
    assert "by events" not in str(acceleration), "nothing was called yet"
    model(IMAGES)
    assert str(acceleration).count("by events") == 2
    assert str(acceleration).startswith("event kernels for 2 of 5 synapses")


def test_a_denser_input_is_told_and_computed() -> None:
    """What was spikes in the example need not be so later."""
    model = Network()
    expected = model(IMAGES)
    acceleration = tg.accelerate(model, IMAGES)
    model.fire0.register_forward_hook(lambda _, __, spikes: 0.5 * spikes)
    halved = Network()
    halved.fire0.register_forward_hook(lambda _, __, spikes: 0.5 * spikes)
    torch.testing.assert_close(model(IMAGES), halved(IMAGES))
    assert not torch.equal(halved(IMAGES), expected)
    assert "strided  dense" in str(acceleration)


def test_detach_leaves_the_model_as_it_was() -> None:
    model = Network()
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    acceleration = tg.accelerate(model, IMAGES)
    acceleration.detach()
    acceleration.detach()
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before


@pytest.mark.parametrize("again", [tg.accelerate, tg.attach])
def test_a_model_is_accelerated_or_scaled_once(again: object) -> None:
    model = Network()
    tg.accelerate(model, IMAGES)
    with pytest.raises(ValueError, match=r"or is accelerated: call detach\(\) of that first"):
        again(model, IMAGES)  # type: ignore[operator]


def test_without_spikes_there_is_nothing_to_accelerate() -> None:
    with pytest.raises(ValueError, match="no layer of this model gets spikes that the event kernels serve"):
        tg.accelerate(nn.Sequential(nn.Conv2d(3, 4, 3), tg.LIF()), torch.randn(2, 3, 8, 8))


def test_gradients_in_copies_checkpoints_and_compiled_networks() -> None:
    model = Network()
    expected = gradients(model)
    acceleration = tg.accelerate(model, IMAGES)
    assert_same(gradients(model), expected)
    assert_same(gradients(copy.deepcopy(model)), expected)
    assert_same(gradients(model, Checkpointed(model)), expected)
    assert_same(gradients(model, torch.compile(model, backend="aot_eager", fullgraph=True)), expected)
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(model)
    acceleration.detach()
    pickle.dumps(model)


class Checkpointed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = checkpoint(self.model, images, use_reentrant=False)
        assert isinstance(output, Tensor)
        return output


def test_inference_and_frozen_weights() -> None:
    model = Network()
    expected = model(IMAGES)
    tg.accelerate(model, IMAGES)
    model.strided.weight.requires_grad_(False)
    model(IMAGES).sum().backward()
    assert model.strided.weight.grad is None
    assert model.stem.weight.grad is not None
    with torch.inference_mode():
        torch.testing.assert_close(model(IMAGES), expected)
