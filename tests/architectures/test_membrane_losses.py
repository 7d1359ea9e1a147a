"""A neuron whose spikes do not reach the loss leaves plain gradients, at once and step by step, and says so once."""

import warnings
from collections.abc import Callable

import pytest
import tape
import torch
from architecture import assert_equal_gradients, gradients, lively
from spiking import Dynamics, Passed
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

import tracegrad as tg

THRESHOLD = 0.3


class WithMembranes(Dynamics):
    """[T, B, ...] -> (spikes, membranes)."""

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, membranes = 0.0, [], []
        for current in currents:
            s, v = self.step(v, current)
            spikes.append(s)
            membranes.append(v)
        return torch.stack(spikes), torch.stack(membranes)


tg.register_neuron(WithMembranes)


class Base(nn.Module):
    """Two layers and neurons; `of` says whether the last one's spikes or its membranes are what the model returns."""

    def __init__(self, of: str = "membranes") -> None:
        super().__init__()
        self.fc0, self.fc1, self.of = nn.Linear(7, 6), nn.Linear(6, 5), of
        self.lif0, self.lif1 = self.neuron(), self.neuron()

    def stepwise(self, tape: tape.Tape, x: Tensor) -> Tensor:
        v0, v1, outputs = 0.0, 0.0, []
        for frame in x:
            s, v0 = self.fire(v0, tape.step(self.fc0, frame))
            tape.fired(self.lif0, s[None], [self.fc0])
            s, v1 = self.fire(v1, tape.step(self.fc1, s))
            tape.fired(self.lif1, s[None], [self.fc1])
            outputs.append(v1 if self.of == "membranes" else s)
        return torch.stack(outputs)

    def fire(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        return self.lif0.step(v, current)


class AtOnce(Base):
    neuron = WithMembranes

    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = self.lif0(self.fc0(x))
        return self.lif1(self.fc1(spikes))[self.of == "membranes"]


class StepByStep(Base):
    neuron = Passed

    def forward(self, x: Tensor) -> Tensor:
        v0, v1, outputs = None, None, []
        for frame in x:
            s, v0 = self.lif0(self.fc0(frame), v0)
            s, v1 = self.lif1(self.fc1(s), v1)
            outputs.append(v1 if self.of == "membranes" else s)
        return torch.stack(outputs)


class Jelly(Base):
    """SpikingJelly's neurons; in step mode "m" they keep the membranes of all steps."""

    step_mode = "m"

    def neuron(self) -> nn.Module:
        return neuron.LIFNode(
            tau=1.6,
            v_threshold=THRESHOLD,
            surrogate_function=surrogate.ATan(),
            step_mode=self.step_mode,
            store_v_seq=self.step_mode == "m",
        )

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        spikes = self.lif1(self.fc1(self.lif0(self.fc0(x))))
        return self.lif1.v_seq if self.of == "membranes" else spikes

    def fire(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        v = v + (current - v) / 1.6
        s = surrogate.ATan()(v - THRESHOLD)
        return s, (1 - s) * v


class JellySteps(Jelly):
    step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        outputs = []
        for frame in x:
            s = self.lif1(self.fc1(self.lif0(self.fc0(frame))))
            outputs.append(self.lif1.v if self.of == "membranes" else s)
        return torch.stack(outputs)


NETWORKS = [Jelly, JellySteps, AtOnce, StepByStep]
every_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def build(network: Callable[..., Base], of: str = "membranes") -> Base:
    torch.manual_seed(0)
    return lively(network(of).double())


def frames() -> tuple[Tensor, ...]:
    return ((torch.rand(4, 3, 7, generator=torch.Generator().manual_seed(1)) < 0.5).double(),)


@every_network
def test_the_reference_is_the_network(network: type[Base]) -> None:
    for of in ("membranes", "spikes"):
        plain, _ = gradients(build(network, of), frames())
        assert_equal_gradients(tape.run(build(network, of), frames(), alpha=0.0).gradients, plain, 1e-12)


@every_network
@every_time
def test_a_loss_of_membranes_alone(network: type[Base], time: str) -> None:
    model = build(network)
    truth = tape.run(build(network), frames(), time=time, leave_out=frozenset({"fc1"}))
    tg.attach(model, frames(), alpha=0.5, time=time, spiking_input=True)
    with pytest.warns(UserWarning, match="lif1|fc1") as told:
        ours, _ = gradients(model, frames())
    assert len(told) == 1
    assert "loss" in str(told[0].message)
    assert_equal_gradients(ours, truth.gradients, 1e-10)
    ours, _ = gradients(model, frames())  # a second warning would be an error
    assert_equal_gradients(ours, truth.gradients, 1e-10)


@every_network
@every_time
def test_a_loss_of_spikes_scales_the_last_layer(network: type[Base], time: str) -> None:
    model = build(network, "spikes")
    truth = tape.run(build(network, "spikes"), frames(), time=time)
    tg.attach(model, frames(), alpha=0.5, time=time, spiking_input=True)
    ours, _ = gradients(model, frames())
    assert_equal_gradients(ours, truth.gradients, 1e-10)


@every_network
@every_time
def test_losses_of_membranes_and_of_spikes_in_turn(network: type[Base], time: str) -> None:
    """Each backward pass goes by what its own loss reaches."""
    model = build(network, "spikes")
    of_spikes = tape.run(build(network, "spikes"), frames(), time=time)
    of_membranes = tape.run(build(network), frames(), time=time, leave_out=frozenset({"fc1"}))
    tg.attach(model, frames(), alpha=0.5, time=time, spiking_input=True)
    for of, truth in (("spikes", of_spikes), ("membranes", of_membranes)) * 2:
        model.of = of
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours, _ = gradients(model, frames())
        assert_equal_gradients(ours, truth.gradients, 1e-10)
