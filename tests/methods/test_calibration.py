import copy
from collections.abc import Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.methods.calibration import CalibratedIF, best_threshold, calibrate
from tracegrad.methods.conversion import Folded


class Plain(nn.Module):
    """A ReLU network of a user's own, without time."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@cache
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)[order], torch.tensor(labels)[order]


@cache
def trained(kind: str) -> nn.Module:
    torch.manual_seed(0)
    network = Plain()
    if kind == "resnet":
        network = tg.models.resnet(in_channels=1, blocks=[1, 1], width=8, time_steps=1, neuron=nn.ReLU)
    images, labels = digits()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(6):
        for batch in torch.randperm(1200).split(60):
            loss = F.cross_entropy(network(images[batch]).reshape(-1, 10), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def outputs_of_layers(network: nn.Module, kind: type[nn.Module], images: Tensor) -> list[Tensor]:
    """Of one forward pass, in the order of the calls."""
    found: list[Tensor] = []
    layers = [module for module in network.modules() if isinstance(module, kind)]
    handles = [layer.register_forward_hook(lambda _, __, output: found.append(output)) for layer in layers]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return found


def by_maximum(converted: nn.Module, layers: list[Tensor]) -> nn.Module:
    """The conversion without calibration: v_th the largest activation, no current added, no starting membrane."""
    plain = uncorrected(converted, 0.0)
    for neuron, activations in zip(neurons_of(plain), layers, strict=True):
        neuron.threshold = neuron.height = activations.max()
    return plain


def uncorrected(converted: nn.Module, rounding: float) -> nn.Module:
    """The conversion with the same thresholds, and no correction but `rounding` times v_th added at each step."""
    plain = copy.deepcopy(converted)
    for neuron in neurons_of(plain):
        neuron.bias = torch.full_like(neuron.bias, rounding * neuron.threshold.item())
        neuron.initial = torch.zeros(())
    return plain


def neurons_of(network: nn.Module) -> list[CalibratedIF]:
    return [module for module in network.modules() if isinstance(module, CalibratedIF)]


def missing(activations: list[Tensor], spiking: nn.Module, images: Tensor) -> list[Tensor]:
    rates = [spikes.mean(0) for spikes in outputs_of_layers(spiking, CalibratedIF, images)]
    return [a - rate for a, rate in zip(activations, rates, strict=True)]


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (network(images).reshape(-1, len(images), 10).mean(0).argmax(-1) == labels).double().mean().item()


def activations_of(network: nn.Module, images: Tensor) -> list[Tensor]:
    return [each[0] if each.dim() == 5 else each for each in outputs_of_layers(network, nn.ReLU, images)]


@pytest.mark.parametrize("kind", ["own", "resnet"])
@pytest.mark.parametrize("mode", ["light", "advanced"])
def test_calibration_lowers_the_error_of_every_layer(kind: str, mode: str) -> None:
    network, time_steps = trained(kind), 8
    images, labels = digits()
    shown, (held_out, answers) = images[:512], (images[1200:], labels[1200:])
    converted = calibrate(network, (batch for batch in shown.split(128)), time_steps, mode)
    assert converted(images[:3]).shape == (time_steps, 3, 10)
    assert len(neurons_of(converted)) == (3 if kind == "own" else 5)

    # The mean squared error of every layer, on other images, against the conversion without calibration.
    layers = activations_of(network, held_out)
    plain = by_maximum(converted, activations_of(network, shown))
    before, after = (
        [each.square().mean().item() for each in missing(layers, spiking, held_out)] for spiking in (plain, converted)
    )
    assert all(b > a for b, a in zip(before, after, strict=True)), f"mean squared errors {before}, calibrated {after}"

    # What the correction corrects, on the images that it saw: the mean of every channel, or of every neuron.
    layers = activations_of(network, shown)
    before, after = (
        [
            each.transpose(0, 1).flatten(1).mean(1).abs().mean().item()
            if mode == "light"
            else each.mean(0).abs().mean().item()
            for each in missing(layers, spiking, shown)
        ]
        for spiking in (uncorrected(converted, 0.5 / time_steps), converted)
    )
    assert all(b > a for b, a in zip(before, after, strict=True)), f"mean errors {before}, corrected {after}"

    source, spiking = accuracy(network, held_out, answers), accuracy(converted, held_out, answers)
    assert source > 0.9
    assert spiking > source - 0.1, f"accuracy {source} fell to {spiking}"


@pytest.mark.parametrize("mode", ["light", "advanced"])
def test_at_32_steps_little_is_lost(mode: str) -> None:
    images, labels = digits()
    network = trained("resnet")
    converted = calibrate(network, [images[:512]], 32, mode)
    source, spiking = (accuracy(each, images[1200:], labels[1200:]) for each in (network, converted))
    assert spiking > source - 0.02, f"accuracy {source} fell to {spiking}"


def test_the_first_layer_by_hand() -> None:
    """Every number of the calibration of one layer, from loops over the equations."""
    torch.manual_seed(0)
    time_steps = 4
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).double()
    batches = [torch.randn(3, 1, 4, 4).double(), torch.randn(5, 1, 4, 4).double()]
    currents = network[0](torch.cat(batches)).detach()
    activations = currents.relu()

    def error(threshold: float) -> float:
        levels = [min(max(a * time_steps / threshold, 0), time_steps) // 1 for a in activations.flatten().tolist()]
        return sum(
            (level * threshold / time_steps - a) ** 2
            for level, a in zip(levels, activations.flatten().tolist(), strict=True)
        )

    largest = activations.max().item()
    threshold = min((largest * (1 - 0.01 * i) for i in range(95)), key=error)
    membrane, total = torch.zeros_like(currents), torch.zeros_like(currents)
    for _ in range(time_steps):
        membrane = membrane + currents + 0.5 * threshold / time_steps
        fired = (membrane >= threshold).double()
        membrane, total = membrane - threshold * fired, total + threshold * fired
    lacking = activations - total / time_steps

    light, advanced = (
        calibrate(network, batches, time_steps, mode).network[1].neuron for mode in ("light", "advanced")
    )
    assert light.threshold.item() == pytest.approx(threshold, rel=1e-12)
    assert light.height.item() == light.threshold.item()
    torch.testing.assert_close(light.bias, 0.5 * threshold / time_steps + lacking.mean((0, 2, 3)))
    assert light.initial.item() == 0
    torch.testing.assert_close(advanced.initial, time_steps * lacking.mean(0))
    torch.testing.assert_close(advanced.bias, torch.full((2,), 0.5 * threshold / time_steps).double())


def test_a_silent_layer_stays_silent() -> None:
    assert best_threshold([torch.zeros(3, 4)], 4).item() == 1


class Around(nn.Module):
    """Two layers with something between them, then an nn.ReLU."""

    def __init__(self, between) -> None:
        super().__init__()
        self.conv1, self.between, self.conv2 = nn.Conv2d(1, 4, 3), between, nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.head = nn.ReLU(), nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv2(self.between(self.conv1(x)))))


class Clipped(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(max=1)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (F.relu, "the forward of Around computes 'relu', which is not linear.*modules of class ReLU"),
        (torch.relu, "the forward of Around computes 'relu'"),
        (lambda x: x.relu_(), "the forward of Around computes 'relu_'"),
        (lambda x: x.clamp(min=0), "the forward of Around computes 'clamp'"),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), "the forward of Around computes 'maximum'"),
        (lambda x: x * (x > 0), "the forward of Around computes 'mul'"),
        (lambda x: F.max_pool2d(x, 2).relu(), "the forward of Around computes 'relu'"),
        (nn.Sequential(nn.GELU()), r"the forward of 'between.0' \(GELU\) computes 'gelu'"),
        (nn.LeakyReLU(), r"the forward of 'between' \(LeakyReLU\) computes 'leaky_relu'"),
        (nn.ReLU6(), r"the forward of 'between' \(ReLU6\) computes 'hardtanh'"),
        (Clipped(), r"the forward of 'between' \(Clipped\) computes"),
    ],
)
@pytest.mark.parametrize("mode", ["light", "advanced"])
def test_activations_other_than_relu_modules_are_refused_by_name(between, message: str, mode: str) -> None:
    network, images = Around(between), torch.randn(4, 1, 8, 8)
    network(images)
    with pytest.raises(ValueError, match=message):
        calibrate(network, [images], 4, mode)


def test_max_pools_stay_as_modules_and_as_functions() -> None:
    images = torch.randn(4, 1, 8, 8)
    pooled = []
    for pool in (nn.MaxPool2d(2), lambda x: F.max_pool2d(x, 2)):
        torch.manual_seed(0)
        network = Around(pool)
        network(images)
        pooled.append(calibrate(network, [images], 8)(images))
    assert torch.equal(*pooled)


class Named(nn.Module):
    """The first name of its activation is not the one that it is called by."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.layers = nn.Sequential(nn.Linear(4, 6), self.activation, nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_relu_under_two_names_is_converted() -> None:
    torch.manual_seed(0)
    network, images = Named(), torch.randn(64, 4)
    converted = calibrate(network, [images], 256)
    assert not any(isinstance(module, nn.ReLU) for module in converted.modules()), converted
    assert isinstance(converted.network.layers[1], Folded)
    torch.testing.assert_close(converted(images).mean(0), network(images), rtol=0, atol=0.02)


def test_a_relu_alone_is_converted() -> None:
    images = torch.rand(8, 4)
    outputs = calibrate(nn.ReLU(), [images], 1024)(images)
    torch.testing.assert_close(outputs.mean(0), images, rtol=0, atol=0.01)


def none() -> Iterator[Tensor]:
    yield from ()


def test_wrong_use() -> None:
    images = [torch.zeros(2, 3)]
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(ValueError, match="time_steps must be at least 1, not 0"):
        calibrate(network, images, 0)
    with pytest.raises(ValueError, match="unknown mode 'heavy'; the known ones are 'light', 'advanced'"):
        calibrate(network, images, 4, "heavy")
    with pytest.raises(ValueError, match="needs images, and there are none"):
        calibrate(network, none(), 4)
    with pytest.raises(ValueError, match=r"Sequential calls no nn\.ReLU"):
        calibrate(nn.Sequential(nn.Linear(3, 4)), images, 4)
    with pytest.raises(ValueError, match=r"forward of '1' \(LIF\) computes"):
        calibrate(nn.Sequential(nn.Linear(3, 4), tg.LIF()), images, 4)
    relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"'1' \(ReLU\) is called more than once: give every layer"):
        calibrate(nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu), images, 4)
