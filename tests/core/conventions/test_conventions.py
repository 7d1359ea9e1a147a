"""What is declared of a neuron is what it does; an error says what would be right."""

import re
from collections.abc import Callable
from functools import partial

import declared_neurons as neurons
import pytest
import torch
from declared_neurons import check, refused
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core.neurons import convention_of

T, B = neurons.T, 2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Where time is: every layout, declared in every way

LAYOUTS: dict[str, tuple[type[nn.Module], dict, Callable[[Tensor], Tensor]]] = {
    "[T, B, ...]": (neurons.TimeFirst, {"time_dim": 0}, lambda x: x),
    "[B, T, ...]": (neurons.BatchFirst, {"time_dim": 1}, lambda x: x.transpose(0, 1)),
    "[B, ..., T]": (neurons.TimeLast, {"time_dim": -1}, lambda x: x.movedim(0, -1)),
    "[T * B, ...]": (neurons.StepsFolded, {"folded": T, "time_dim": 0}, lambda x: x.flatten(0, 1)),
    "[B * T, ...]": (neurons.ExamplesFolded, {"folded": T, "time_dim": 1}, lambda x: x.transpose(0, 1).flatten(0, 1)),
}
SHAPES = {"one example": (T, 1, 5), "features": (T, B, 5), "images": (T, 3, 2, 4, 4)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("actual", LAYOUTS)
def test_time_is_found_in_every_layout(actual: str, shape: tuple[int, ...]) -> None:
    neuron, right, arrange = LAYOUTS[actual]
    x = arrange(torch.rand(shape))
    for declared in LAYOUTS:
        if declared == actual:
            check(neuron(), x, declared=right)
            continue
        message = refused(neuron(), x, declared=LAYOUTS[declared][1])
        assert message.startswith(f"neuron layers.2 (class {neuron.__name__}) is declared as {declared}")
        remedy = ", ".join(f"{option}={value}" for option, value in right.items())
        assert message.endswith(f"time: declare tg.register_neuron({neuron.__name__}, {remedy})")


@pytest.mark.parametrize("actual", LAYOUTS)
def test_all_steps_at_once_are_not_one_step(actual: str) -> None:
    neuron, right, arrange = LAYOUTS[actual]
    message = refused(neuron(), arrange(torch.rand(T, B, 5)), declared={"step": True, "state": "v"})
    assert "is declared as one step a call, [B, ...] (step=True), but its outputs depend on what came before" in message
    remedy = ", ".join(f"{option}={value}" for option, value in right.items())
    assert message.endswith(f"time: declare tg.register_neuron({neuron.__name__}, state='v', {remedy})")


@pytest.mark.parametrize(
    ("neuron", "remedy"),
    [
        (neurons.Stepping, "tg.register_neuron(Stepping, state='v', step=True)"),
        (neurons.Cell, "tg.register_neuron(Cell, state='v', step=True)"),
    ],
)
def test_one_step_is_not_all_steps(neuron: type[nn.Module], remedy: str) -> None:
    message = refused(neuron(), torch.rand(3, 5), declared={})
    assert "is declared as [T, B, ...], but its outputs depend on its last call" in message
    assert message.endswith(f"there is no time in it, one call is one step: declare {remedy}")


def test_the_example_of_the_documentation() -> None:
    assert refused(neurons.BatchFirst(), torch.rand(5, 4, 6), declared={}) == (
        "neuron layers.2 (class BatchFirst) is declared as [T, B, ...], but its outputs depend on what came before "
        "along dimension 1, time: declare tg.register_neuron(BatchFirst, time_dim=1)"
    )


def test_what_else_was_declared_stays_in_the_remedy() -> None:
    message = refused(neurons.BatchFirst(), torch.rand(5, 4, 6), declared={"state": "v", "graded": True})
    assert message.endswith("declare tg.register_neuron(BatchFirst, state='v', graded=True, time_dim=1)")


def test_parallel_neurons_depend_on_later_steps_too() -> None:
    x = torch.rand(T, B, 5)
    check(neurons.Parallel(), x, declared={})
    check(neurons.ParallelBatchFirst(), x.transpose(0, 1), declared={"time_dim": 1})
    message = refused(neurons.ParallelBatchFirst(), x.transpose(0, 1), declared={})
    assert message.endswith("along dimension 1, time: declare tg.register_neuron(ParallelBatchFirst, time_dim=1)")
    message = refused(neurons.Parallel(), x, declared={"step": True, "state": "v"})
    assert message.endswith("along dimension 0, time: declare tg.register_neuron(Parallel, state='v', time_dim=0)")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_neuron_without_memory_is_right_in_every_layout(layout: str) -> None:
    neuron, _, arrange = LAYOUTS[layout]
    for _, declared, _ in LAYOUTS.values():
        check(neuron(leak=0.0, hard=True), arrange(torch.rand(T, T, 5)), declared=declared)


def test_folded_where_t_comes_from_the_neuron_or_its_input() -> None:
    neuron = neurons.ExamplesFolded()
    neuron.steps = 3
    declared = {"folded": lambda neuron, x: neuron.steps, "time_dim": 1}
    check(neuron, torch.rand(6, 5), declared=declared)
    message = refused(neuron, torch.rand(6, 5), declared=declared | {"time_dim": 0})
    assert message.endswith("tg.register_neuron(ExamplesFolded, folded=3, time_dim=1)")
    neuron = neurons.StepsFolded()
    check(neuron, torch.rand(8, 5), declared={"folded": lambda neuron, x: len(x) // (len(x) // T)})


def test_a_wrong_t_is_refused() -> None:
    message = refused(neurons.StepsFolded(), torch.rand(16, 5), declared={"folded": 8})
    assert "is declared as [T * B, ...] with T = 8" in message
    assert message.endswith("tg.register_neuron(StepsFolded, folded=4, time_dim=0)")


@pytest.mark.parametrize(
    ("declared", "said"), [({"folded": 3}, r"\[T \* B, ...\] with T = 3"), ({"time_dim": 2}, "time in dimension 2")]
)
@pytest.mark.parametrize("refuses", [False, True], ids=["", "takes no other input"])
def test_an_input_without_such_a_time(declared: dict, said: str, refuses: bool) -> None:
    neuron = neurons.TimeFirst(leak=0.0)
    if refuses:
        neuron.forward = None
    message = refused(neuron, torch.rand(4, 5), declared=declared)
    assert re.search(rf"is declared as {said}, but its input has the shape \[4, 5\]: no such time is in it", message)


# Right neurons


OVER_TIME: dict[str, Callable[[], nn.Module]] = {
    "soft reset": partial(neurons.TimeFirst, hard=False),
    "hard reset": neurons.TimeFirst,
    "high threshold": partial(neurons.TimeFirst, threshold=200.0),
    "low threshold": partial(neurons.TimeFirst, threshold=0.01),
    "faint memory": partial(neurons.TimeFirst, leak=0.1),
    "detached membranes": neurons.Detached,
    "random threshold": neurons.Stochastic,
    "lateral inhibition": neurons.Inhibited,
    "norm inside": neurons.Normalized,
    "threshold moved by the batch": neurons.Homeostatic,
    "refractory": neurons.Refractory,
    "height 0.3": neurons.High,
    "spikes but for rounding": neurons.Rounded,
}


@pytest.mark.parametrize("build", OVER_TIME.values(), ids=OVER_TIME)
def test_right_neurons_over_time(build: Callable[[], nn.Module]) -> None:
    for batch in (1, B):
        check(build(), torch.rand(T, batch, 6), declared={})
    message = refused(neurons.Transposed(build()), torch.rand(B, T, 6), declared={})
    assert message.endswith("time: declare tg.register_neuron(Transposed, time_dim=1)")


def test_per_channel_thresholds_and_heights() -> None:
    check(neurons.Threshold(), torch.rand(T, B, 6, 3, 3), declared={})
    message = refused(neurons.Transposed(neurons.Threshold()), torch.rand(B, T, 6, 3, 3), declared={})
    assert message.endswith("time_dim=1)")


STEP_BY_STEP: dict[str, tuple[Callable[[], nn.Module], tuple]] = {
    "attribute": (neurons.Stepping, ()),
    "attribute, detached": (partial(neurons.Stepping, detach=True), ()),
    "argument": (neurons.Cell, ()),
    "argument given": (neurons.Cell, (torch.zeros(B, 6),)),
    "argument None": (neurons.Cell, (None,)),
}


@pytest.mark.parametrize(("build", "states"), STEP_BY_STEP.values(), ids=STEP_BY_STEP)
def test_right_neurons_step_by_step(build: Callable[[], nn.Module], states: tuple) -> None:
    check(build(), torch.rand(B, 6), *states, declared={"step": True, "state": "v"})


@pytest.mark.parametrize("value", [0.0, 100.0], ids=["silent", "saturated"])
def test_the_examples_values_do_not_matter(value: float) -> None:
    x = torch.full((3, T, 5), value)
    check(neurons.BatchFirst(), x, declared={"time_dim": 1})
    refused(neurons.BatchFirst(), x, declared={})


def test_an_example_of_one_step() -> None:
    for x in (torch.rand(1, 3, 5), torch.rand(1, 1, 5)):
        check(neurons.TimeFirst(), x, declared={})
        assert "time_dim=1" in refused(neurons.BatchFirst(), x.transpose(0, 1), declared={})


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["silent", "saturated"])
def test_nothing_can_be_seen_of_a_constant(value: float) -> None:
    constant = neurons.returning("Constant", lambda self, s, u: torch.full_like(s, value))
    for declared in ({}, {"time_dim": 1}, {"folded": 2}, {"step": True, "state": "v"}):
        check(constant(), torch.rand(T, B, 5), declared=declared)


def test_a_current_given_by_keyword() -> None:
    check(neurons.TimeFirst(), declared={}, currents=torch.rand(T, B, 5))
    assert "time_dim=1" in refused(neurons.BatchFirst(), declared={}, currents=torch.rand(B, T, 5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precisions(dtype: torch.dtype) -> None:
    x = torch.rand(T, B, 5).to(dtype)
    check(neurons.TimeFirst(), x, declared={})
    check(neurons.Rounded(), x, declared={})
    refused(neurons.BatchFirst(), x, declared={})
    assert "spikes" in refused(neurons.Graded(), x, declared={})


def test_tracegrads_own_neurons_are_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tg.LIF, "forward", lambda self, x: pytest.fail("called"))
    for neuron in (tg.LIF(), tg.IF()):
        check(neuron, torch.rand(T, B, 5))


def test_a_subclass_of_tracegrads_is_checked() -> None:
    class Turned(tg.LIF):
        def forward(self, currents: Tensor) -> Tensor:
            return super().forward(currents.transpose(0, 1)).transpose(0, 1)

    assert "tg.register_neuron(Turned, time_dim=1)" in refused(Turned(), torch.rand(B, T, 5))


# Declarations


class Fresh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": True}, r"Fresh is called step by step: state='...' must name its state"),
        ({"step": True, "state": "v", "time_dim": 1}, "no time in its input: leave out time_dim and folded"),
        ({"step": True, "state": "v", "folded": 4}, "no time in its input: leave out time_dim and folded"),
        ({"folded": 4, "time_dim": -1}, r"time_dim of Fresh must be 0 for \[T \* B, ...\] or 1 for .*, not -1"),
        ({"folded": 0}, "folded is the T of Fresh, 1 or more, not 0"),
    ],
)
def test_declarations_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tg.register_neuron(Fresh, **options)
    assert convention_of(Fresh()) is None, "a refused declaration counts"


def test_only_modules_are_neurons() -> None:
    with pytest.raises(TypeError, match="a neuron is a subclass of torch.nn.Module"):
        tg.register_neuron(lambda x: x)


def test_registering_again_replaces_the_declaration() -> None:
    class Again(neurons.BatchFirst):
        pass

    tg.register_neuron(Again, state="v", graded=True)
    tg.register_neuron(Again, time_dim=1)
    convention = convention_of(Again())
    assert (convention.time_dim, convention.state, convention.graded) == (1, None, False)
    check(Again(), torch.rand(B, T, 5))
