"""Training under autocast, in float16 with a gradient scaler and in bfloat16, against float32.

Inputs and weights are numbers that both formats hold exactly, and so are all currents: the spikes are float32's.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_near

B, CLASSES = 128, 4
FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@tg.register_neuron
class Fired(tg.LIF):
    """`tg.LIF` that keeps what it fired last."""

    def forward(self, currents: Tensor) -> Tensor:
        self.fired = super().forward(currents)
        return self.fired


class Stepping(nn.Module):
    """`tg.LIF`, one step a call, with the membrane in float32; keeps what it has fired."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        self.v, self.steps = None, []

    @property
    def fired(self) -> Tensor:
        return torch.stack(self.steps)

    def forward(self, current: Tensor) -> Tensor:
        u = current.float() if self.v is None else 0.9 * self.v + current.float()
        distance = u.detach() - self.threshold
        s = (distance >= 0).to(u) + (u - u.detach()) * (distance.abs() <= 0.5)
        self.v = u - s * self.threshold
        self.steps.append(s.detach())
        return s


tg.register_neuron(Stepping, step=True, state="v", reset="reset()")


class Dense(nn.Module):
    frame, threshold, offset = (64,), 0.125, 0.25

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0, self.b, self.n1 = (
            nn.Linear(64, 64),
            Fired(threshold=self.threshold),
            nn.Linear(64, 64),
            Fired(threshold=self.threshold),
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.n1(self.b(self.n0(self.a(x)))))


class Convolutional(nn.Module):
    frame, threshold, offset = (2, 8, 8), 0.125, 0.25

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Conv2d(2, 4, 3, padding=1), Fired(threshold=self.threshold)
        self.b, self.n1 = nn.Conv2d(4, 4, 3, padding=1), Fired(threshold=self.threshold)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        s = self.n0(self.a(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        s = self.n1(self.b(s.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.head(s.mean((3, 4)))


class Steps(nn.Module):
    frame, threshold, offset = (2, 8, 8), 0.125, 0.25

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Conv2d(2, 4, 3, padding=1), Stepping(self.threshold)
        self.b, self.n1 = nn.Conv2d(4, 4, 3, padding=1), Stepping(self.threshold)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        self.n0.reset()
        self.n1.reset()
        return torch.stack([self.head(self.n1(self.b(self.n0(self.a(frame)))).mean((2, 3))) for frame in x])


class Tokens(Dense):
    """R is a sum over 51,200 tokens in each step, of products of traces: more than float16 has numbers for."""

    frame, offset = (400, 2), -0.25

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(2)


NETWORKS = {"dense": Dense, "tokens": Tokens, "convolutional": Convolutional, "step by step": Steps}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def build(network: Callable[[], nn.Module]) -> nn.Module:
    """With weights of few digits, so that currents are exact, and biases that make neurons fire often."""
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.weight.copy_((layer.weight * 32).round() / 16)
            layer.bias.copy_((layer.bias * 16).round() / 16 + model.offset)
    return model


def frames(model: nn.Module, steps: int = 4) -> Tensor:
    return (torch.rand(steps, B, *model.frame, generator=torch.Generator().manual_seed(1)) < 0.7).float()


def attach(model: nn.Module, x: Tensor, **options: str) -> tg.Attachment:
    return tg.attach(model, x[:, :2], spiking_input=True, alpha=0.5, record=True, **options)


def train(model: nn.Module, x: Tensor, format: torch.dtype | None) -> dict[str, Tensor]:
    """One step of a training: the gradients, which the scaler of float16 has unscaled."""
    model.zero_grad()
    labels = torch.arange(B) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=format == torch.float16)
    with torch.autocast("cpu", format, enabled=format is not None):
        outputs = model(x)
        loss = F.cross_entropy(outputs.float().mean(0), labels)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() >= 2**16 or not scaler.is_enabled(), "the scaler found a gradient that is not finite"
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def compare(network: Callable[[], nn.Module], format: torch.dtype, steps: int = 4, **options: str) -> None:
    exact, model = build(network), build(network)
    x = frames(exact, steps)
    expected, a = attach(exact, x, **options), attach(model, x, **options)
    assert a.pairs == [("a", "n0"), ("b", "n1")]
    right, found = train(exact, x, None), train(model, x, format)
    for name in ("n0", "n1"):
        fired = exact.get_submodule(name).fired
        assert torch.equal(model.get_submodule(name).fired.float(), fired), f"{name} fires other spikes"
        assert 0.1 < fired.mean() < 0.9, f"{name} fires at a rate of {fired.mean():.2f}: the case tests little"
    for name in ("a", "b"):
        relation = a.relations[name]
        assert relation.dtype == torch.float32
        exact_relation = expected.relations[name]
        error = (relation - exact_relation).abs().max() / exact_relation.abs().max()
        assert error <= 0.01, f"R_hat of {name} is off by {error:.2%} of its largest value"
        gradient, weight = found[f"{name}.weight"], right[f"{name}.weight"]
        assert gradient.isfinite().all()
        error = (gradient - weight).norm() / weight.norm()
        assert error <= 0.01, f"the gradient of {name} is off by {error:.2%}"


@every_network
@every_format
@every_time
def test_relations_and_gradients_are_those_of_float32(
    network: Callable[[], nn.Module], format: torch.dtype, time: str
) -> None:
    compare(network, format, time=time)


@every_network
@every_format
@pytest.mark.parametrize("normalize", ["cosine", "centered", "lift"])
def test_sums_that_are_divided_out_are_those_of_float32(
    network: Callable[[], nn.Module], format: torch.dtype, normalize: str
) -> None:
    compare(network, format, normalize=normalize)


@every_format
@every_time
def test_many_steps_one_by_one(format: torch.dtype, time: str) -> None:
    """What is summed over steps does not stop to grow where bfloat16 has no more digits."""

    class Small(Steps):
        frame = (2, 3, 3)

    compare(Small, format, steps=48, time=time)


class Normed(Convolutional):
    frame = (3, 10, 10)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)), tg.IF()
        self.b, self.n1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), tg.IF()


@every_format
@every_time
def test_a_training_with_norms_stays_finite(format: torch.dtype, time: str) -> None:
    torch.manual_seed(0)
    model, labels = Normed(), torch.arange(B) % CLASSES
    x = torch.randn(B, *model.frame).expand(2, B, *model.frame)
    a = tg.attach(model, x[:, :1], time=time, alpha=0.5, record=True)
    assert a.pairs == [("b.0", "n1")]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=format == torch.float16)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", format):
            outputs = model(x)
        scaler.scale(F.cross_entropy(outputs.float().mean(0), labels)).backward()
        scaler.unscale_(optimizer)
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        relation = a.relations["b.0"]
        assert relation.isfinite().all()
        assert_near(relation.amax((-4, -3, -2, -1)), torch.ones(relation.shape[:-4]), 1e-6, "the largest R_hat")
        scaler.step(optimizer)
        scaler.update()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
