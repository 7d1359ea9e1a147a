"""The check of a neuron's convention leaves everything as it is, and takes neurons that are hard to copy."""

import threading
from contextlib import nullcontext
from copy import deepcopy

import declared_neurons as neurons
import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core.conventions.check import ConventionChecks, check_convention

T, B, N = neurons.T, 2, 5


def check(neuron: nn.Module, *arguments) -> None:
    check_convention("neuron", neuron, arguments, {})


def refuses_batch_first(neuron: nn.Module) -> None:
    """The neuron was checked, not left out."""
    with pytest.raises(ValueError, match="time_dim=1"):
        check(neuron, torch.rand(B, T, N))


class Counting(neurons.BatchFirst):
    """Counts its calls in all that a neuron can hold."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(()))
        self.history: list[Tensor] = []
        self.own = torch.Generator().manual_seed(3)

    def forward(self, currents: Tensor) -> Tensor:
        type(self).calls += 1
        self.seen += 1
        self.history.append(currents)
        noise = torch.rand(currents.shape) + torch.rand(currents.shape, generator=self.own)
        return super().forward(currents * self.scale - 0.1 * noise)


@pytest.mark.parametrize("declared", [{"time_dim": 1}, {}], ids=["right", "wrong"])
def test_nothing_changes(declared: dict) -> None:
    tg.register_neuron(Counting, **declared)
    neuron, x = Counting().train(), torch.rand(B, T, N, requires_grad=True)
    heard: list[str] = []
    neuron.register_forward_hook(lambda *_: heard.append("after"))
    neuron.register_forward_pre_hook(lambda *_: heard.append("before"))
    state, own, values = deepcopy(neuron.state_dict()), neuron.own.get_state(), x.detach().clone()
    random, calls = torch.get_rng_state(), Counting.calls
    with nullcontext() if declared else pytest.raises(ValueError, match="time_dim=1"):
        check(neuron, x)
    assert Counting.calls > calls, "the neuron was not checked"
    assert torch.equal(torch.get_rng_state(), random), "the caller's random numbers"
    assert torch.equal(neuron.own.get_state(), own), "the neuron's random numbers"
    assert not heard, "hooks were called"
    assert not neuron.history
    assert neuron.training
    assert all(torch.equal(neuron.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(x, values)
    assert x.grad is None
    assert neuron.scale.grad is None


def test_no_graph_is_made() -> None:
    grad_enabled: set[bool] = set()

    class Graph(neurons.TimeFirst):
        def forward(self, currents: Tensor) -> Tensor:
            grad_enabled.add(torch.is_grad_enabled() or currents.requires_grad)
            return super().forward(currents)

    tg.register_neuron(Graph)
    check(Graph(), torch.rand(T, B, N, requires_grad=True) * 2)
    assert grad_enabled == {False}


class Model(nn.Module):
    """Holds a neuron, and a hook on it that is one of its own methods."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = neurons.BatchFirst()
        self.neuron.register_forward_hook(self.listen)

    def listen(self, *_: object) -> None:
        pytest.fail("called")

    def __deepcopy__(self, memo: dict) -> "Model":
        pytest.fail("the whole model was copied")


def test_a_hook_that_holds_the_model() -> None:
    tg.register_neuron(neurons.BatchFirst)
    refuses_batch_first(Model().neuron)


def test_a_neuron_that_holds_a_lock() -> None:
    class Locked(neurons.BatchFirst):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def forward(self, currents: Tensor) -> Tensor:
            with self.lock:
                return super().forward(currents)

    tg.register_neuron(Locked)
    refuses_batch_first(Locked())


@pytest.mark.parametrize("kept", ["leaf", "graph", "list"])
def test_a_state_that_fits_no_other_input(kept: str) -> None:
    """The check starts from no state, as the model does that sets it."""

    class Continuing(neurons.BatchFirst):
        v: Tensor | None = None

        def forward(self, currents: Tensor) -> Tensor:
            if self.v is not None:
                currents = currents + self.v
            return super().forward(currents)

    tg.register_neuron(Continuing, state="v")
    neuron = Continuing()
    held = torch.rand(7, 1, N, requires_grad=True)
    neuron.v = held.detach() if kept == "leaf" else held * 0.5 if kept == "graph" else None
    neuron.others = [held * 0.5]
    left = neuron.v
    refuses_batch_first(neuron)
    assert neuron.v is left


def test_a_state_that_a_method_resets() -> None:
    class Resetting(neurons.BatchFirst):
        def reset(self) -> None:
            self.held.clear()
            self.start = torch.rand(3)

        def forward(self, currents: Tensor) -> Tensor:
            return super().forward(sum(self.held, currents))

    tg.register_neuron(Resetting)
    neuron, held = Resetting(), torch.rand(7, 1, N)
    neuron.held = [held]
    x, random = torch.rand(B, T, N), torch.get_rng_state()
    with pytest.raises(ValueError, match="time_dim=1"):
        check(neuron, x)
    assert neuron.held == [held]
    assert torch.equal(torch.get_rng_state(), random), "the caller's random numbers"


def test_a_neuron_with_a_fixed_number_of_steps_and_features() -> None:
    class Fixed(neurons.Parallel):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(torch.linspace(0, 1, N))

        def forward(self, currents: Tensor) -> Tensor:
            return super().forward(currents - self.threshold)

    tg.register_neuron(Fixed)
    check(Fixed(), torch.rand(T, B, N))
    tg.register_neuron(neurons.Transposed)
    refuses_batch_first(neurons.Transposed(Fixed()))


def test_a_neuron_that_refuses_most_values() -> None:
    """Inputs that it refuses are left out; of others it is seen what it does."""

    class Probabilities(neurons.BatchFirst):
        def forward(self, currents: Tensor) -> Tensor:
            if currents.min() < 0 or currents.max() > 1:
                raise ValueError("no probability")
            return super().forward(currents)

    tg.register_neuron(Probabilities)
    refuses_batch_first(Probabilities())


@pytest.mark.parametrize("trouble", ["copy", "call"])
def test_a_neuron_that_cannot_be_checked_is_left_out(trouble: str) -> None:
    class Hopeless(neurons.BatchFirst):
        def __deepcopy__(self, memo: dict) -> nn.Module:
            if trouble == "copy":
                raise RuntimeError("cannot be copied")
            copy = Hopeless()
            copy.forward = None  # a call raises TypeError
            memo[id(self)] = copy
            return copy

    tg.register_neuron(Hopeless)
    check(Hopeless(), torch.rand(B, T, N))


def test_random_numbers_that_are_not_pytorchs_hide_time_only() -> None:
    seeds = iter(range(10**6))

    class Drifting(neurons.BatchFirst):
        def forward(self, currents: Tensor) -> Tensor:
            shift = torch.rand(currents.shape, generator=torch.Generator().manual_seed(next(seeds)))
            return super().forward(currents * shift)

    tg.register_neuron(Drifting)
    check(Drifting(), torch.rand(B, T, N))


# Cost


def test_equal_neurons_are_checked_once() -> None:
    tg.register_neuron(Counting, time_dim=1)
    checks, x = ConventionChecks(), (torch.rand(B, T, N),)

    def calls(neuron: nn.Module, arguments: tuple = x) -> int:
        before = Counting.calls
        checks.check("neuron", neuron, arguments, {})
        return Counting.calls - before

    first, heavier, other = Counting(), Counting(), Counting()
    heavier.scale.data *= 2
    heavier.own = first.own  # what is no number, text or tensor counts as another object
    other.leak = 0.7
    assert calls(first) > 0
    assert calls(first) == 0
    assert calls(heavier) == 0, "other weights"
    assert calls(other) > 0, "another option"
    assert calls(first, (torch.rand(B, T, N + 1),)) > 0, "another shape"
    assert calls(first.eval()) > 0, "another mode"


def test_what_is_refused_is_refused_again_by_its_own_name() -> None:
    tg.register_neuron(neurons.BatchFirst)
    checks = ConventionChecks()
    for name in ("first", "second"):
        with pytest.raises(ValueError, match=f"neuron {name} "):
            checks.check(name, neurons.BatchFirst(), (torch.rand(B, T, N),), {})


def test_a_large_example_costs_few_and_small_calls() -> None:
    shapes: list[torch.Size] = []

    class Watched(neurons.TimeFirst):
        def forward(self, currents: Tensor) -> Tensor:
            shapes.append(currents.shape)
            return super().forward(currents)

    tg.register_neuron(Watched)
    check(Watched(), torch.rand(T, 1, 64, 32, 32))
    assert len(shapes) < 60
    assert max(shape.numel() for shape in shapes) < 10_000
