"""Step by step: two neurons behind one synapse, calls of all steps beside calls of one, checkpoints, truncation."""

from collections.abc import Callable

import pytest
import tape
import torch
from architecture import assert_equal_gradients, gradients, lively
from spiking import Passed, TimeFirst
from tape import Tape
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracegrad as tg
from attaching.models import ALPHA, frames
from reference import assert_differ

every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])
STEPS = 6
STATES = ("n0", "left", "right", "n1")


class Network(nn.Module):
    """first, of all steps, - n0, then at each step fork - left and right - into - n1, then last, of all steps, - n2.

    `checkpointed` names the parts that are computed anew in the backward pass.
    """

    def __init__(self, *checkpointed: str) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.first, self.n0 = nn.Linear(6, 8), Passed()
        self.fork, self.left, self.right = nn.Linear(8, 7), Passed(), Passed(0.8)
        self.into, self.n1 = nn.Linear(7, 6), Passed()
        self.last, self.n2 = nn.Linear(6, 5), TimeFirst()

    def part(self, name: str, run: Callable, *arguments: Tensor | None) -> Tensor:
        if name in self.checkpointed:
            return checkpoint(run, *arguments, use_reentrant=False)
        return run(*arguments)

    def forked(self, s: Tensor, left: Tensor | None, right: Tensor | None) -> tuple[Tensor, ...]:
        z = self.part("fork", self.fork, s)
        return *self.left(z, left), *self.right(z, right)

    def step(self, z: Tensor, *states: Tensor | None) -> tuple[Tensor, ...]:
        v0, left, right, v1 = states
        s, v0 = self.part("n0", self.n0, z, v0)
        a, left, b, right = self.part("fork and neurons", self.forked, s, left, right)
        s, v1 = self.n1(self.into(a + b), v1)
        return s, v0, left, right, v1

    def steps(self, x: Tensor, states: tuple[Tensor | None, ...] = (None,) * 4) -> tuple[Tensor, ...]:
        fired = []
        for z in self.part("first", self.first, x):
            s, *states = self.part("step", self.step, z, *states)
            fired.append(s)
        return torch.stack(fired), *states

    def behind(self, s: Tensor) -> Tensor:
        return self.part("n2", self.n2, self.part("last", self.last, s))

    def forward(self, x: Tensor) -> Tensor:
        return self.part("last and neuron", self.behind, self.steps(x)[0])

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        return tape.neuron(self.n2, tape.synapse(self.last, self.stepwise_steps(tape, x)), [self.last])

    def stepwise_steps(self, tape: Tape, x: Tensor, cut: int = 0) -> Tensor:
        states, fired = dict.fromkeys(STATES, 0.0), []

        def fire(name: str, z: Tensor, behind: nn.Module) -> Tensor:
            neuron = self.get_submodule(name)
            s, states[name] = neuron.step(states[name], z)
            tape.fired(neuron, s[None], [behind])
            return s

        for number, frame in enumerate(x):
            if cut and number == cut:
                states = {name: state.detach() for name, state in states.items()}
            s = fire("n0", tape.step(self.first, frame), self.first)
            z = tape.step(self.fork, s)
            s = fire("left", z, self.fork) + fire("right", z, self.fork)
            fired.append(fire("n1", tape.step(self.into, s), self.into))
        return torch.stack(fired)


def build(*checkpointed: str) -> Network:
    torch.manual_seed(0)
    return lively(Network(*checkpointed).double())


def inputs() -> tuple[Tensor]:
    return (frames(steps=STEPS),)


PAIRS = [("first", "n0"), ("fork", "left"), ("fork", "right"), ("into", "n1"), ("last", "n2")]
PARTS = (
    (),
    ("first",),
    ("n0",),
    ("fork",),
    ("fork and neurons",),
    ("step",),
    ("step", "fork"),
    ("last",),
    ("n2",),
    ("last and neuron",),
    ("first", "fork and neurons", "last", "n2"),
)


@every_time
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " + ".join(parts) or "none")
def test_gradients_with_checkpoints(parts: tuple[str, ...], time: str) -> None:
    model = build(*parts)
    truth = tape.run(build(), inputs(), alpha=ALPHA, time=time)
    a = tg.attach(model, (frames(5, steps=3),), spiking_input=True, alpha=ALPHA, time=time)
    assert a.pairs == PAIRS
    for _ in range(2):
        ours, _ = gradients(model, inputs())
        assert_equal_gradients(ours, truth.gradients, 1e-10)
    plain, _ = gradients(build(), inputs())
    assert_differ({name: truth.gradients[name] for name in truth.scaled}, {name: plain[name] for name in truth.scaled})


@every_time
def test_relations_with_checkpoints(time: str) -> None:
    model = build("step", "last and neuron")
    truth = tape.run(build(), inputs(), alpha=ALPHA, time=time, normalize="none")
    a = tg.attach(model, inputs(), spiking_input=True, alpha=ALPHA, time=time, normalize="none", record=True)
    gradients(model, inputs())
    assert_equal_gradients(a.relations, truth.relations, 1e-10)


class Chunks(nn.Module):
    """Goes on, chunk after chunk of the steps, until `begin`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.begin()

    def begin(self) -> None:
        self.states: tuple[Tensor | None, ...] = (None,) * 4

    def detach_states(self) -> None:
        self.states = tuple(state.detach() for state in self.states)

    def forward(self, x: Tensor) -> Tensor:
        fired, *self.states = self.network.steps(x, self.states)
        return fired

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        return self.network.stepwise_steps(tape, x, cut=STEPS // 2)


def truncated(model: Chunks) -> dict[str, Tensor | None]:
    """The gradients of two chunks, with a backward pass behind each; the losses add up to `loss_of`."""
    (x,) = inputs()
    weights = torch.randn(STEPS, x.shape[1], 6, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    model.zero_grad()
    model.begin()
    for chunk, weight in zip(x.chunk(2), weights.chunk(2), strict=True):
        (model(chunk) * weight).sum().backward()
        model.detach_states()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("parts", [(), ("first",), ("step",), ("fork and neurons",)], ids=lambda parts: str(parts))
def test_truncated_backpropagation(parts: tuple[str, ...]) -> None:
    """The first synapse takes the steps of a chunk at once; its traces, as all others, run on through both."""
    truth = tape.run(Chunks(build()), inputs(), alpha=ALPHA)
    whole = tape.run(build(), inputs(), alpha=ALPHA)
    model = Chunks(build(*parts))
    a = tg.attach(model, (frames(5, steps=3),), spiking_input=True, alpha=ALPHA)
    assert [synapse for synapse, _ in a.pairs] == [f"network.{name}" for name in ("first", "fork", "fork", "into")]
    model.begin()
    for _ in range(2):
        assert_equal_gradients(truncated(model), truth.gradients, 1e-10)
    assert_differ(
        {"network.first.weight": truth.gradients["network.first.weight"]},
        {"network.first.weight": whole.gradients["first.weight"]},
    )


@pytest.mark.parametrize("time", ["mean", "final"])
def test_truncated_backpropagation_needs_per_step(time: str) -> None:
    model = Chunks(build())
    tg.attach(model, inputs(), spiking_input=True, alpha=ALPHA, time=time)
    model.begin()
    with pytest.raises(RuntimeError, match=f"truncated back-propagation .* needs time='per_step', as time='{time}'"):
        truncated(model)
    model.begin()
    model(inputs()[0]).sum().backward()  # a sequence that begins anew trains again


def test_a_state_that_is_not_detached_is_an_error() -> None:
    model = Chunks(build())
    tg.attach(model, inputs(), spiking_input=True, alpha=ALPHA)
    model.begin()
    model(inputs()[0]).sum().backward()
    with pytest.raises(RuntimeError, match="or detach its state for truncated back-propagation through time"):
        model(inputs()[0])


@every_time
def test_one_backward_pass_through_two_chunks(time: str) -> None:
    """The whole sequence, though its synapses have taken it in two calls."""
    model, (x,) = Chunks(build()), inputs()
    tg.attach(model, x[:3], spiking_input=True, alpha=ALPHA, time=time)
    weights = torch.randn(STEPS, x.shape[1], 6, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    model.begin()
    outputs = torch.cat([model(chunk) for chunk in x.chunk(2)])
    (outputs * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}

    class Uncut(Chunks):
        def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
            return self.network.stepwise_steps(tape, x)

    truth = tape.run(Uncut(build()), inputs(), alpha=ALPHA, time=time)
    assert_equal_gradients(found, truth.gradients, 1e-10)


class Stacked(nn.Module):
    """Synapses that take one step after another; their stacked currents reach neurons that take all steps."""

    def __init__(self, *checkpointed: str) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.first, self.n0, self.second, self.n1 = nn.Linear(6, 8), TimeFirst(), nn.Linear(8, 7), TimeFirst()

    part = Network.part

    def forward(self, x: Tensor) -> Tensor:
        s = self.part("n0", self.n0, torch.stack([self.part("first", self.first, frame) for frame in x]))
        return self.part("second and neuron", self.behind, s)

    def behind(self, s: Tensor) -> Tensor:
        return self.n1(torch.stack([self.part("second", self.second, frame) for frame in s]))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.n0, tape.synapse(self.first, x), [self.first])
        return tape.neuron(self.n1, tape.synapse(self.second, s), [self.second])


@every_time
@pytest.mark.parametrize(
    "parts", [(), ("first",), ("n0",), ("first", "second"), ("second and neuron",)], ids=lambda parts: str(parts)
)
def test_steps_of_a_synapse_before_a_neuron_that_takes_them_all(parts: tuple[str, ...], time: str) -> None:
    def build(*parts: str) -> Stacked:
        torch.manual_seed(0)
        return lively(Stacked(*parts).double())

    model = build(*parts)
    truth = tape.run(build(), inputs(), alpha=ALPHA, time=time)
    a = tg.attach(model, (frames(5, steps=3),), spiking_input=True, alpha=ALPHA, time=time)
    assert a.pairs == [("first", "n0"), ("second", "n1")]
    for _ in range(2):
        ours, _ = gradients(model, inputs())
        assert_equal_gradients(ours, truth.gradients, 1e-10)
