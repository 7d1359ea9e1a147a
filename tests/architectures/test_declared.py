"""What a neuron's declaration says is checked: where time is in it, and that it fires spikes."""

import pytest
import torch
from spiking import BatchFirst, Dynamics, FoldedBatchFirst, FoldedTimeFirst, TimeFirst, TimeLast
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_differ, assert_near

T, B, F = 4, 3, 6


class Network(nn.Module):
    """Three linear layers on [T, B, F]; `there` brings currents into the order of the neurons, `back` spikes back."""

    def __init__(self, neuron: type[nn.Module], order: str, *arguments: int) -> None:
        super().__init__()
        self.fc0, self.n0 = nn.Linear(F, 8), neuron(*arguments)
        self.fc1, self.n1 = nn.Linear(8, 8), neuron(*arguments)
        self.fc2, (self.there, self.back) = nn.Linear(8, 3), ORDERS[order]

    def forward(self, x: Tensor) -> Tensor:
        s = self.back(self.n0(self.there(self.fc0(x))))
        return self.fc2(self.back(self.n1(self.there(self.fc1(s)))))


ORDERS = {
    "time first": (lambda z: z, lambda s: s),
    "batch first": (lambda z: z.transpose(0, 1), lambda s: s.transpose(0, 1)),
    "time last": (lambda z: z.movedim(0, -1), lambda s: s.movedim(-1, 0)),
    "folded": (lambda z: z.flatten(0, 1), lambda s: s.unflatten(0, (T, -1))),
    "folded batch first": (
        lambda z: z.transpose(0, 1).flatten(0, 1),
        lambda s: s.unflatten(0, (-1, T)).transpose(0, 1),
    ),
}


def gradient(kind: type[nn.Module], order: str, time: str, *arguments: int) -> tuple[Tensor, Tensor]:
    """The scaled and the plain gradient of the middle layer."""
    found = []
    for scaled in (True, False):
        torch.manual_seed(1)
        model, x = Network(kind, order, *arguments).double(), torch.rand(T, B, F).double() * 3
        if scaled:
            tg.attach(model, x, alpha=0.9, time=time)
        (model(x) ** 2).sum().backward()
        found.append(model.fc1.weight.grad)
    return found[0], found[1]


# Time


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
@pytest.mark.parametrize(
    ("kind", "order", "arguments"),
    [
        (BatchFirst, "batch first", ()),
        (TimeLast, "time last", ()),
        (FoldedTimeFirst, "folded", (T,)),
        (FoldedBatchFirst, "folded batch first", (T,)),
    ],
)
def test_a_declared_order_of_time_gives_what_time_first_gives(
    kind: type[nn.Module], order: str, arguments: tuple[int, ...], time: str
) -> None:
    expected, plain = gradient(TimeFirst, "time first", time)
    ours, _ = gradient(kind, order, time, *arguments)
    assert_near(ours, expected, 1e-12, "the weight")
    assert_differ({"weight": expected}, {"weight": plain})


def undeclared(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass, so that nothing that is declared of `kind` holds for it."""
    return type(f"Undeclared{kind.__name__}", (kind,), {})


class CutBatchFirst(BatchFirst):
    """[B, T, ...], and no gradient from one step to the next."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v = super().step(v, current)
        return spikes, v.detach()


REFUSED = {
    "batch first": (BatchFirst, "batch first", (), {}, r"time_dim=1"),
    "time last": (TimeLast, "time last", (), {}, r"time_dim=(-1|2)"),
    "folded": (FoldedTimeFirst, "folded", (T,), {}, r"folded="),
    "folded batch first": (FoldedBatchFirst, "folded batch first", (T,), {}, r"folded="),
    "batch first, declared last": (BatchFirst, "batch first", (), {"time_dim": -1}, r"time_dim=1"),
    "time first, declared second": (TimeFirst, "time first", (), {"time_dim": 1}, r"time_dim=0"),
    "batch first, gradients cut": (CutBatchFirst, "batch first", (), {}, r"time_dim=1"),
}


@pytest.mark.parametrize(("kind", "order", "arguments", "declared", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_or_missing_declaration_is_an_error_that_says_which_is_right(
    kind: type[nn.Module], order: str, arguments: tuple[int, ...], declared: dict[str, int], remedy: str
) -> None:
    wrong = tg.register_neuron(undeclared(kind), **declared)
    model = Network(wrong, order, *arguments).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="time") as error:
        tg.attach(model, torch.rand(T, B, F).double() * 3)
    assert "n0" in str(error.value)
    assert torch.equal(model.fc0.weight, before["fc0.weight"])
    error.match(remedy)


def test_registering_a_class_again_replaces_its_declaration() -> None:
    kind = undeclared(BatchFirst)
    tg.register_neuron(kind, time_dim=-1)
    tg.register_neuron(kind, time_dim=1)
    expected, _ = gradient(TimeFirst, "time first", "final")
    ours, _ = gradient(kind, "batch first", "final")
    assert_near(ours, expected, 1e-12, "the weight")


def test_the_check_leaves_the_neuron_as_it_is() -> None:
    """It runs on a copy: state, buffers and random numbers are the same afterwards."""

    class Noisy(TimeFirst):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def over_time(self, currents: Tensor) -> Tensor:
            self.calls += 1
            return super().over_time(currents + 0.01 * torch.rand_like(currents))

    tg.register_neuron(Noisy)
    model, x = Network(Noisy, "time first").double(), torch.rand(T, B, F).double() * 3
    state = torch.get_rng_state()
    tg.attach(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.n0.calls == 0


# Spikes


class Squashed(Dynamics):
    """A surrogate in the place of the spikes: numbers between 0 and 1."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        u = self.leak * v + current
        spikes = torch.sigmoid(4 * (u - self.threshold))
        return spikes, u * (1 - spikes)


class Signs(Dynamics):
    """-1 and 1: there is no silence."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        spikes, v = super().step(v, current)
        return 2 * spikes - 1, v


class Graded(Dynamics):
    """A spike carries the membrane."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        spikes, left = super().step(v, current)
        return spikes * (self.leak * v + current), left


class Integrator(Dynamics):
    """A read-out, or the filter of a synapse: nothing fires."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        v = self.leak * v + current
        return v, v


class MembraneFirst(Dynamics):
    """(membranes, spikes), in the wrong order."""

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        spikes = self.over_time(currents)
        return spikes.cumsum(0) * 0.3 + currents, spikes


class OfMembranes(Network):
    """With neurons that return a tuple."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.n1(self.fc1(self.n0(self.fc0(x))[0]))[0])


def timefirst(kind: type[Dynamics]) -> type[nn.Module]:
    return type(f"TimeFirst{kind.__name__}", (kind,), {"forward": lambda self, x: self.over_time(x)})


@pytest.mark.parametrize("kind", [Squashed, Signs, Graded, Integrator], ids=lambda kind: kind.__name__)
def test_outputs_that_are_no_spikes_are_an_error(kind: type[Dynamics]) -> None:
    neuron = tg.register_neuron(timefirst(kind))
    with pytest.raises(ValueError, match="spikes") as error:
        tg.attach(Network(neuron, "time first").double(), torch.rand(T, B, F).double() * 3)
    assert "n0" in str(error.value)
    error.match("graded=True")


def test_a_tuple_that_starts_with_membranes_is_an_error() -> None:
    tg.register_neuron(MembraneFirst)
    with pytest.raises(ValueError, match="spikes"):
        tg.attach(OfMembranes(MembraneFirst, "time first").double(), torch.rand(T, B, F).double() * 3)


def test_a_relu_is_no_neuron() -> None:
    class Rectifier(nn.ReLU):
        pass

    tg.register_neuron(Rectifier)
    with pytest.raises(ValueError, match="time|spikes"):
        tg.attach(Network(Rectifier, "time first").double(), torch.rand(T, B, F).double() * 3)


def test_a_neuron_of_spikingjelly_whose_surrogate_does_not_spike_is_an_error() -> None:
    class Soft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            soft = surrogate.Sigmoid(spiking=False)
            self.fc0, self.n0 = nn.Linear(F, 8), neuron.LIFNode(surrogate_function=soft, step_mode="m")
            self.fc1, self.n1 = nn.Linear(8, 3), neuron.LIFNode(surrogate_function=soft, step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self)
            return self.n1(self.fc1(self.n0(self.fc0(x))))

    with pytest.raises(ValueError, match="spikes"):
        tg.attach(Soft(), torch.rand(T, B, F) * 3)


@pytest.mark.parametrize("height", [0.25, 3.0])
def test_one_height_other_than_one_is_a_spike(height: float) -> None:
    class Tall(TimeFirst):
        def over_time(self, currents: Tensor) -> Tensor:
            return height * super().over_time(currents)

    tg.register_neuron(Tall)
    attachment = tg.attach(Network(Tall, "time first").double(), torch.rand(T, B, F).double() * 3)
    assert attachment.pairs == [("fc1", "n1")]
