"""Losses that read some of the spikes, or none: what reaches the loss is scaled, at once and step by step alike."""

import warnings
from collections.abc import Callable, Sequence

import pytest
import tape
import torch
from architecture import assert_equal_gradients, lively
from spiking import Dynamics, Passed
from torch import Tensor, nn

import tracegrad as tg
from attaching.models import ALPHA, B, frames
from reference import assert_differ

T = 4
Outputs = tuple[Sequence[Tensor], Sequence[Tensor]]
"""Spikes and membranes of the last layer, a tensor for each step."""


class AllSteps(Dynamics):
    """[T, B, ...] -> spikes, membranes."""

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, membranes = 0.0, [], []
        for current in currents:
            s, v = self.step(v, current)
            spikes.append(s)
            membranes.append(v)
        return torch.stack(spikes), torch.stack(membranes)


tg.register_neuron(AllSteps)


class AtOnce(nn.Module):
    neuron: type[nn.Module] = AllSteps

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0, self.b, self.n1 = nn.Linear(6, 8), self.neuron(), nn.Linear(8, 7), self.neuron()

    def forward(self, x: Tensor) -> Outputs:
        s, _ = self.n0(self.a(x))
        s, v = self.n1(self.b(s))
        return s.unbind(), v.unbind()


class StepByStep(AtOnce):
    neuron = Passed

    def forward(self, x: Tensor) -> Outputs:
        v0, v1, spikes, membranes = None, None, [], []
        for frame in x:
            s, v0 = self.n0(self.a(frame), v0)
            s, v1 = self.n1(self.b(s), v1)
            spikes.append(s)
            membranes.append(v1)
        return spikes, membranes


FORMS = {"at once": AtOnce, "step by step": StepByStep}
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def reading(spikes: Sequence[int], membranes: Sequence[int]) -> Callable[[Outputs], Tensor]:
    """The loss that reads these steps, with a gradient that differs at every place."""

    def loss(outputs: Outputs) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        weights = torch.randn(2, T, B, 7, generator=generator, dtype=torch.float64)
        read = [weights[0, t] * outputs[0][t] for t in spikes] + [weights[1, t] * outputs[1][t] for t in membranes]
        return torch.stack(read).sum()

    return loss


OF_SPIKES = {
    "the last": reading([T - 1], []),
    "the first": reading([0], []),
    "one in the middle": reading([1], []),
    "all": reading(range(T), []),
    "the first, and the last membranes": reading([0], [T - 1]),
    "the last, and the first membranes": reading([T - 1], [0]),
    "one, and all membranes": reading([1], range(T)),
}
OF_MEMBRANES = {"all": reading([], range(T)), "the last": reading([], [T - 1]), "the first": reading([], [0])}


def build(form: type[AtOnce]) -> AtOnce:
    torch.manual_seed(0)
    return lively(form().double())


def attach(model: nn.Module, time: str) -> tg.Attachment:
    return tg.attach(model, frames(), spiking_input=True, alpha=ALPHA, time=time)


def gradients(model: nn.Module, loss: Callable[[Outputs], Tensor]) -> dict[str, Tensor | None]:
    model.zero_grad()
    loss(model(frames())).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@every_time
@pytest.mark.parametrize("loss", OF_SPIKES.values(), ids=OF_SPIKES)
def test_some_of_the_spikes(loss: Callable[[Outputs], Tensor], time: str) -> None:
    """As soon as one of its spikes reaches the loss, all of a neuron's steps are scaled."""
    found = []
    for form in FORMS.values():
        model = build(form)
        attach(model, time)
        found.append(gradients(model, loss))  # a warning would be an error
    assert_equal_gradients(*found, 1e-10)
    plain = gradients(build(AtOnce), loss)
    for name in ("a.weight", "b.weight"):
        assert_differ({name: found[0][name]}, {name: plain[name]})


@every_form
@every_time
@pytest.mark.parametrize("loss", OF_MEMBRANES.values(), ids=OF_MEMBRANES)
def test_membranes_alone(form: type[AtOnce], loss: Callable[[Outputs], Tensor], time: str) -> None:
    """The last layer's gradient is plain, to the bit that of a network in which it was left out; one warning."""
    model, left_out = build(form), build(form)
    attach(model, time)
    tg.attach(left_out, frames(), spiking_input=True, alpha=ALPHA, time=time, exclude="b")
    expected = gradients(left_out, loss)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            assert_equal_gradients(gradients(model, loss), expected, 1e-12)
    messages = [str(each.message) for each in told]
    assert len(messages) == 1, messages
    assert "the gradient of b is not scaled: the spikes of its neuron do not reach the loss" in messages[0]
    assert_equal_gradients(
        {"b.weight": expected["b.weight"]}, {"b.weight": gradients(build(form), loss)["b.weight"]}, 1e-12
    )


@every_form
@every_time
def test_two_backward_passes_through_one_graph(form: type[AtOnce], time: str) -> None:
    """Each goes by what its own loss reaches."""
    model = build(form)
    attach(model, time)
    losses = (OF_SPIKES["the last"], OF_MEMBRANES["all"], OF_SPIKES["the first"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [gradients(model, loss) for loss in losses]
        outputs = model(frames())
        for loss, right in zip(losses, expected, strict=True):
            model.zero_grad()
            loss(outputs).backward(retain_graph=True)
            found = {name: parameter.grad for name, parameter in model.named_parameters()}
            assert_equal_gradients(found, right, 1e-12)


class Recurrent(nn.Module):
    """The loss reads the last membrane alone, which earlier spikes reach through the recurrent synapse."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.n = nn.Linear(6, 8), nn.Linear(8, 8, bias=False), Passed()

    def forward(self, x: Tensor) -> Tensor:
        s, v = x.new_zeros(x.shape[1], 8), None
        for frame in x:
            s, v = self.n(self.inp(frame) + self.rec(s), v)
        return v

    def stepwise(self, tape: tape.Tape, x: Tensor) -> Tensor:
        s, v = x.new_zeros(x.shape[1], 8), 0.0
        for frame in x:
            s, v = self.n.step(v, tape.step(self.inp, frame) + tape.step(self.rec, s))
            tape.fired(self.n, s[None], [self.inp, self.rec])
        return v


@every_time
def test_the_last_membrane_of_a_recurrent_layer(time: str) -> None:
    def build() -> Recurrent:
        torch.manual_seed(0)
        return lively(Recurrent().double())

    truth = tape.run(build(), (frames(),), alpha=ALPHA, time=time)
    model = build()
    attach(model, time)
    found = gradients(model, lambda v: tape.loss_of(v))
    assert_equal_gradients(found, truth.gradients, 1e-10)
    plain = gradients(build(), lambda v: tape.loss_of(v))
    assert_differ({"rec.weight": found["rec.weight"]}, {"rec.weight": plain["rec.weight"]})
