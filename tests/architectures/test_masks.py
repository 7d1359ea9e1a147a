"""`with attachment.mask(m):` m bool [T, B] or [B], True counts. Networks of several conventions, against the tape."""

from collections.abc import Iterator

import mixed
import pools
import pytest
import recurrent
import recurrent_libraries
import tape
import time_orders
import torch
from architecture import ALPHA, Architecture, B, T, assert_equal_gradients, gradients, plain
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_differ, assert_near, loss_of

NETWORKS = {
    "batch-first-dense": time_orders.ARCHITECTURES["batch-first-dense"],
    "folded-residual": time_orders.ARCHITECTURES["folded-residual"],
    "time-last-stacked": time_orders.ARCHITECTURES["time-last-stacked"],
    "hand-loop": recurrent.ARCHITECTURES["hand-loop"],
    "lateral-convolution": recurrent.ARCHITECTURES["lateral-convolution"],
    "norse": recurrent_libraries.ARCHITECTURES["norse"],
    "steps-then-all": mixed.ARCHITECTURES["steps-then-all"],
    "pooled-sum": pools.ARCHITECTURES["pooled-sum"],
    "graded": mixed.ARCHITECTURES["graded"],
}
LENGTHS = (4, 2, 3)
"""T of each example, where the rest is padding."""

every_network = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def steps_of(case: Architecture) -> int:
    return 2 * T if case is NETWORKS["norse"] else T


def padding(steps: int) -> Tensor:
    """[T, B], with examples of unequal lengths."""
    lengths = torch.tensor(LENGTHS) + steps - T
    return torch.arange(steps)[:, None] < lengths


def gaps(steps: int) -> Tensor:
    """[T, B], with masked steps at the beginning, in the middle and at the end, and a step that counts nowhere."""
    mask = torch.ones(steps, B, dtype=torch.bool)
    mask[0, 0] = mask[2, 1] = mask[-1, 1] = mask[-1, 2] = False
    mask[1] = False
    return mask


def examples(_: int) -> Tensor:
    """[B]: the second example does not count."""
    return torch.tensor([True, False, True])


MASKS = {"padding": padding, "gaps": gaps, "examples": examples}


def masked_gradients(
    model: nn.Module, inputs: tuple[Tensor, ...], attachment: tg.Attachment, mask: Tensor
) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(tape.SEED)
    with attachment.mask(mask):
        output = model(*inputs)
    loss_of(output).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@every_network
@every_time
@pytest.mark.parametrize("form", MASKS)
def test_gradients(case: Architecture, time: str, form: str) -> None:
    model, inputs, mask = case.build(), case.inputs(), MASKS[form](steps_of(case))
    truth = tape.run(case.build(), inputs, alpha=ALPHA, time=time, mask=mask)
    unmasked = tape.run(case.build(), inputs, alpha=ALPHA, time=time)
    attachment = case.attach(model, time=time)
    for _ in range(2):
        assert_equal_gradients(masked_gradients(model, inputs, attachment, mask), truth.gradients, 1e-10)
    ours, _ = gradients(model, inputs)  # the mask is gone behind the block
    assert_equal_gradients(ours, unmasked.gradients, 1e-10)
    assert_differ(truth.gradients, {name: unmasked.gradients[name] for name in truth.scaled})


@every_network
@every_time
def test_relations_are_divided_by_the_steps_that_count(case: Architecture, time: str) -> None:
    model, inputs, mask = case.build(), case.inputs(), padding(steps_of(case))
    method = {"time": time, "normalize": "none"}
    truth = tape.run(case.build(), inputs, mask=mask, **method)
    attachment = case.attach(model, record=True, **method)
    masked_gradients(model, inputs, attachment, mask)
    relations = {plain(name): relation for name, relation in attachment.relations.items()}
    assert_equal_gradients(relations, truth.relations, 1e-10)


@every_network
@every_time
def test_a_mask_of_true_changes_nothing_and_one_of_false_takes_r_away(case: Architecture, time: str) -> None:
    model, inputs, steps = case.build(), case.inputs(), steps_of(case)
    untouched, _ = gradients(case.build(), inputs)
    attachment = case.attach(model, time=time)
    whole, _ = gradients(model, inputs)
    for everything in (torch.ones(steps, B, dtype=torch.bool), torch.ones(B, dtype=torch.bool)):
        assert_equal_gradients(masked_gradients(model, inputs, attachment, everything), whole, 1e-12)
    scaled = tape.run(case.build(), inputs).scaled
    expected = {name: (1 - ALPHA) * value if name in scaled else value for name, value in untouched.items()}
    for nothing in (torch.zeros(steps, B, dtype=torch.bool), torch.zeros(B, dtype=torch.bool)):
        assert_equal_gradients(masked_gradients(model, inputs, attachment, nothing), expected, 1e-12)


# A padded batch


PADDED = {name: NETWORKS[name] for name in ("hand-loop", "graded")}  # nothing in them mixes examples


def relations_alone(model: nn.Module, attachment: tg.Attachment, x: Tensor) -> Iterator[dict[str, Tensor]]:
    for example, length in enumerate(LENGTHS):
        loss_of(model(x[:length, example : example + 1])).backward()
        yield dict(attachment.relations)


@pytest.mark.parametrize("case", PADDED.values(), ids=PADDED)
@every_time
def test_a_padded_batch_gives_the_sum_of_its_examples_alone(case: Architecture, time: str) -> None:
    """What stands in the padding, here spikes as everywhere, does not matter."""
    model, (x,) = case.build(), case.inputs()
    attachment = case.attach(model, time=time, normalize="none", record=True)
    alone = list(relations_alone(model, attachment, x))
    masked_gradients(model, (x,), attachment, padding(T))
    assert attachment.relations.keys() == alone[0].keys()
    for name, relation in attachment.relations.items():
        expected = torch.zeros_like(relation)
        for each in alone:
            expected[: len(each[name])] += each[name]  # per_step: the first steps; else all of it
        assert_near(relation, expected, 1e-10, f"relation of {name}")


@every_time
def test_gradients_of_a_padded_batch_whose_loss_is_masked(time: str) -> None:
    """One example, padded: its gradient is that of the example alone."""
    case = PADDED["hand-loop"]
    model, (x,) = case.build(), case.inputs(examples=1)
    attachment = case.attach(model, time=time)
    alone, _ = gradients(model, (x[:3],))
    alone = {name: gradient.clone() for name, gradient in alone.items()}
    model.zero_grad()
    with attachment.mask(torch.tensor([True, True, True, False])[:, None]):
        output = model(x)
    loss_of(output[:3]).backward()
    assert_equal_gradients({name: p.grad for name, p in model.named_parameters()}, alone, 1e-10)


# Step by step, the loop outside of the model


class OneStep(nn.Module):
    """`HandLoop` without its loop: one step a call, after `begin`."""

    def __init__(self, network: recurrent.HandLoop) -> None:
        super().__init__()
        self.network = network

    def begin(self, examples: int) -> None:
        self.network.lif.reset()
        self.network.lif2.reset()
        self.spikes = torch.zeros(examples, 6, dtype=torch.float64)

    def forward(self, frame: Tensor) -> Tensor:
        network = self.network
        self.spikes = network.lif(network.inp(frame) + network.rec(self.spikes))
        return network.head(network.lif2(network.out(self.spikes)))


@every_time
@pytest.mark.parametrize("form", MASKS)
def test_steps_count_from_the_beginning_of_the_sequence(time: str, form: str) -> None:
    case = NETWORKS["hand-loop"]
    (x,), mask = case.inputs(), MASKS[form](T)
    truth = tape.run(case.build(), (x,), alpha=ALPHA, time=time, mask=mask)
    model = OneStep(case.build())
    model.begin(B)
    attachment = tg.attach(model, x[0], alpha=ALPHA, time=time, spiking_input=True)
    for _ in range(2):
        model.zero_grad()
        model.begin(B)
        with attachment.mask(mask):
            output = torch.stack([model(frame) for frame in x])
        loss_of(output).backward()
        ours = {name.removeprefix("network."): p.grad for name, p in model.named_parameters()}
        assert_equal_gradients(ours, truth.gradients, 1e-10)


# Wrong masks


@pytest.mark.parametrize(
    "mask", [torch.ones(T, B), torch.ones(T, B + 1, dtype=torch.bool), torch.ones(T + 1, B, dtype=torch.bool)]
)
def test_a_mask_that_does_not_fit_is_an_error_that_says_so(mask: Tensor) -> None:
    """Numbers instead of truth values; too many examples; too many steps."""
    case = NETWORKS["graded"]
    model = case.build()
    attachment = case.attach(model)
    with pytest.raises((TypeError, ValueError), match="mask"), attachment.mask(mask):
        model(*case.inputs())
