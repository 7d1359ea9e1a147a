"""Layers inside a registered neuron: those that drive its spikes one by one pair with it, the others are listed."""

import pytest
import torch
from spiking import Fire
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_near

T, B, N = 4, 3, 9


def fire_in_a_loop(currents: Tensor) -> Tensor:
    membrane, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        membrane = 0.8 * membrane + current
        spikes.append(Fire.apply(membrane - 0.5))
        membrane = membrane * (1 - spikes[-1])
    return torch.stack(spikes)


def fire_straight_through(currents: Tensor) -> Tensor:
    """The surrogate is written out: a step forward, a smooth function backward."""
    membrane, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        membrane = 0.8 * membrane + current
        smooth = torch.atan(2 * (membrane - 0.5)) / 3 + 0.5
        spikes.append((membrane > 0.5).to(smooth).detach() - smooth.detach() + smooth)
        membrane = membrane - 0.5 * spikes[-1]
    return torch.stack(spikes)


def fire_into_one_tensor(currents: Tensor) -> Tensor:
    membrane, spikes = torch.zeros_like(currents[0]), torch.zeros_like(currents)
    for step, current in enumerate(currents):
        membrane = membrane + (current - membrane) / 1.25
        spikes[step] = Fire.apply(membrane - 0.5)
        membrane = torch.where(spikes[step].detach() > 0, 0.0, membrane)
    return spikes


def fire_by_conductance(currents: Tensor) -> Tensor:
    """A current adds to the membrane, and the membrane leaks faster the more it holds."""
    membrane, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        membrane = 0.9 * membrane - 0.1 * membrane * membrane + current
        spikes.append(Fire.apply(membrane - 0.5))
        membrane = membrane - 0.5 * spikes[-1].detach()
    return torch.stack(spikes)


FIRES = [fire_in_a_loop, fire_straight_through, fire_into_one_tensor, fire_by_conductance, tg.LIF().forward]


@tg.register_neuron
class Inside(nn.Module):
    """A layer, and what its currents pass on their way to a neuron, in one module."""

    def __init__(self, fire, way=lambda current, other: current) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(N, N, bias=False), nn.Linear(N, N, bias=False)
        self.fire, self.way = fire, way

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.way(self.a(x), self.b(x)))


@tg.register_neuron
class StepByStep(Inside):
    def forward(self, x: Tensor) -> Tensor:
        return self.fire(torch.stack([self.way(self.a(step), self.b(step)) for step in x]))


@tg.register_neuron
class Outside(nn.Module):
    """A neuron behind layers that are no part of it."""

    def __init__(self, fire) -> None:
        super().__init__()
        self.fire = fire

    def forward(self, currents: Tensor) -> Tensor:
        return self.fire(currents)


def frames() -> Tensor:
    return (torch.rand(T, B, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) < 0.6).double()


def attached(inside: Inside) -> tg.Attachment:
    return tg.attach(nn.Sequential(inside), frames(), spiking_input=True, alpha=1.0, allow_empty=True)


def gradient(model: nn.Module, weight: nn.Parameter) -> Tensor:
    x, weights = frames(), torch.linspace(-1, 1, T * B * N, dtype=torch.float64).reshape(T, B, N)
    (model(x) * weights).sum().backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("kind", [Inside, StepByStep])
@pytest.mark.parametrize("fire", FIRES, ids=lambda fire: fire.__name__.replace("forward", "LIF"))
@pytest.mark.parametrize(
    "way",
    [
        lambda a, b: a,
        lambda a, b: a.transpose(-1, -2).transpose(-1, -2),
        lambda a, b: 1.5 * (a + 0.1),
        lambda a, b: nn.functional.layer_norm(a, (N,)),
    ],
    ids=["as it is", "there and back", "weighed", "normed"],
)
def test_its_gradient_is_that_of_the_layer_before_a_neuron(kind, fire, way) -> None:
    torch.manual_seed(3)
    inside = kind(fire, way).double()
    model = nn.Sequential(inside)
    assert tg.attach(model, frames(), spiking_input=True, alpha=1.0).pairs == [("0.a", "0")]
    found = gradient(model, inside.a.weight)

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.neuron = nn.Linear(N, N, bias=False), Outside(fire)

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(way(self.a(x), None))

    apart = Apart().double()
    apart.a.weight.data.copy_(inside.a.weight)
    a = tg.attach(apart, frames(), spiking_input=True, alpha=1.0)
    expected = gradient(apart, apart.a.weight)
    assert expected.abs().max() > 0, "a neuron that never fires tells nothing"
    assert_near(found, expected, 1e-12, "the weight's gradient")
    a.detach()
    apart.zero_grad()
    assert (gradient(apart, apart.a.weight) - expected).abs().max() > 1e-3, "scaling changed nothing"


def square(x: Tensor) -> Tensor:
    return x.unflatten(-1, (3, 3))


@pytest.mark.parametrize("kind", [Inside, StepByStep])
@pytest.mark.parametrize("fire", FIRES, ids=lambda fire: fire.__name__.replace("forward", "LIF"))
@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (lambda a, b: a * torch.sigmoid(b), "its current is multiplied by another one on its way to the neuron"),
        (lambda a, b: a * b.exp(), "its current is multiplied by another one on its way to the neuron"),
        (lambda a, b: square(a).transpose(-1, -2).flatten(-2), "its current is permuted on its way to the neuron"),
        (
            lambda a, b: a + square(a).transpose(-1, -2).flatten(-2),
            "each of its currents drives more than one of its neurons",
        ),
        (lambda a, b: a.flip(-1), "its current passes Flip on its way to the neuron"),
        (lambda a, b: a.cumsum(-1), "its current passes Cumsum on its way to the neuron"),
        (lambda a, b: a.roll(1, -1), "its current passes Roll on its way to the neuron"),
        (lambda a, b: a @ torch.ones(N, N).to(a), "its current passes"),
    ],
    ids=["gate", "exponential gate", "permuted", "spread", "flipped", "summed", "rolled", "mixed"],
)
def test_others_are_listed_with_the_reason(kind, fire, way, reason: str) -> None:
    inside = kind(fire, way).double()
    a = attached(inside)
    assert a.pairs == [], str(a)
    assert reason in dict(a.skipped)["0.a"], str(a)


@pytest.mark.parametrize("fire", FIRES, ids=lambda fire: fire.__name__.replace("forward", "LIF"))
def test_one_that_drives_the_next_step_is_listed(fire) -> None:
    def late(currents: Tensor, _: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(currents[0]), *currents[:-1].unbind()])

    a = attached(Inside(fire, late).double())
    assert a.pairs == [], str(a)


def test_two_layers_of_one_current_both_pair() -> None:
    inside = Inside(fire_in_a_loop, lambda a, b: a + b).double()
    assert attached(inside).pairs == [("0.a", "0"), ("0.b", "0")]


def test_one_whose_current_goes_into_another_one_is_listed() -> None:
    """The block's spikes are those of its second layer: the first one is not to be scaled by them."""

    @tg.register_neuron
    class Block(Inside):
        def forward(self, x: Tensor) -> Tensor:
            return self.fire(self.b(self.fire(self.a(x))))

    a = attached(Block(fire_in_a_loop).double())
    assert "0.a" not in dict(a.pairs), str(a)
    assert dict(a.skipped)["0.a"] == "its current goes into 0.b within its neuron"


@pytest.mark.parametrize("steps", [1, 6])
def test_step_by_step_with_the_membrane_in_the_module(steps: int) -> None:
    """Each call's own current drives its spikes, though the membrane leads back to all calls before."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(N, N, bias=False)
            self.membrane: Tensor | float = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.membrane = 0.8 * self.membrane + self.a(x)
            spikes = Fire.apply(self.membrane - 0.5)
            self.membrane = self.membrane * (1 - spikes)
            return spikes

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: Tensor) -> Tensor:
            self.cell.membrane = 0.0
            return torch.stack([self.cell(step) for step in x])

    tg.register_neuron(Cell, step=True, state="membrane", reset="membrane = 0.0")
    a = tg.attach(Loop().double(), frames().repeat(2, 1, 1)[:steps], spiking_input=True)
    assert a.pairs == [("cell.a", "cell")]


def test_a_registered_neuron_within_another_one_is_the_layers_own() -> None:
    inside = Inside(tg.LIF()).double()
    assert attached(inside).pairs == [("0.a", "0.fire")]
