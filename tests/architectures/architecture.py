"""What an architecture is in these tests, and what each must show."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tape
import torch
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_near, loss_of

T, B = 4, 3
STEPS, EXAMPLES = -2, -1
"""Where a shape has T and B."""
ALPHA = 0.5
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Architecture:
    """A network, what it is called with, and what `attach` is to find in it.

    Attributes:
        network: builds it; with `forward` and `stepwise`.
        inputs: (examples, seed, steps) -> what it is called with.
        pairs: every (synapse, neuron).
        skipped: for every synapse that is left unscaled, a pattern that its true reason matches.
        options: of `attach`.
        frozen: synapses whose weight does not train, which is what the table says of them.
        either: synapses among the pairs that may be left out instead, if the reason matches this pattern.
    """

    network: Callable[[], nn.Module]
    inputs: Callable[..., Inputs]
    pairs: tuple[tuple[str, str], ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    either: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return lively(self.network().double())

    def attach(self, model: nn.Module, **method: Any) -> tg.Attachment:
        """Attaches with other examples, and fewer of them, than the tests compute with."""
        return tg.attach(model, self.inputs(2, seed=5), **{"alpha": ALPHA, **self.options, **method})


def spikes(*shape: int) -> Callable[..., Inputs]:
    return _random(shape, lambda x: (x < 0.5).double())


def reals(*shape: int) -> Callable[..., Inputs]:
    return _random(shape, lambda x: 2 * x - 0.5)


def _random(shape: tuple[int, ...], form: Callable[[Tensor], Tensor]) -> Callable[..., Inputs]:
    def inputs(examples: int = B, seed: int = 1, steps: int = T) -> Inputs:
        sizes = [{EXAMPLES: examples, STEPS: steps}.get(size, size) for size in shape]
        return (form(torch.rand(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)),)

    return inputs


def lively(model: nn.Module) -> nn.Module:
    """Gives norms unequal gains and offsets, and weights that no norm follows more reach, so that neurons fire."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine:
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, 0.1, 0.5)
            module.eps = 1e-3
        elif isinstance(module._parameters.get("weight"), Tensor) and module.weight.dim() > 1:
            with torch.no_grad():
                module.weight.mul_(2)
    return model


def gradients(model: nn.Module, inputs: Inputs) -> tuple[dict[str, Tensor | None], list[Tensor | None]]:
    """What the model's own backward gives under `loss_of`: of every parameter, and of the inputs."""
    inputs = tape.entered(inputs)
    model.zero_grad()
    torch.manual_seed(tape.SEED)
    loss_of(model(*inputs)).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return grads, [x.grad for x in inputs if x.requires_grad]


def output_of(model: nn.Module, inputs: Inputs) -> Tensor:
    torch.manual_seed(tape.SEED)
    return model(*inputs).detach()


def assert_equal_gradients(
    ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor | None], bound: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        if gradient is None:
            assert ours[name] is None, f"{name} has a gradient"
        else:
            assert ours[name] is not None, f"{name} has no gradient"
            assert_near(ours[name], gradient, bound, name)


def assert_equal_inputs(ours: list[Tensor | None], theirs: list[Tensor | None], bound: float) -> None:
    assert_equal_gradients(
        {f"the gradient of input {place}": x for place, x in enumerate(ours)},
        {f"the gradient of input {place}": x for place, x in enumerate(theirs)},
        bound,
    )


def plain(name: str) -> str:
    """A synapse's name; a layer with one weight may be called by its own name or by its weight's."""
    return name.removesuffix(".weight")


def pairs_of(attachment: tg.Attachment) -> list[tuple[str, str]]:
    return sorted((plain(synapse), neuron) for synapse, neuron in attachment.pairs)


def reasons_of(attachment: tg.Attachment) -> dict[str, str]:
    names = [plain(name) for name, _ in attachment.skipped]
    assert len(names) == len(set(names)), f"a synapse is listed twice:\n{attachment}"
    return {plain(name): reason for name, reason in attachment.skipped}


def row_of(attachment: tg.Attachment, synapse: str) -> str:
    """The line of the table that is about a synapse."""
    rows = [line for line in str(attachment).splitlines() if plain(line.partition(" ")[0]) == synapse]
    assert len(rows) == 1, f"{len(rows)} rows of {synapse} in\n{attachment}"
    return rows[0]


def left_out(case: Architecture, attachment: tg.Attachment) -> frozenset[str]:
    """Of the synapses that may be paired or left out, those that are left out."""
    return frozenset(case.either) - {name for name, _ in pairs_of(attachment)}


# What each architecture must show


def shows_that_the_reference_is_the_network(case: Architecture) -> None:
    """Nothing is attached: outputs, and with alpha = 0 gradients, of the two forms agree."""
    model, inputs = case.build(), case.inputs()
    truth = tape.run(case.build(), inputs, alpha=0.0)
    plain_gradients, of_inputs = gradients(model, inputs)
    assert_near(truth.output, output_of(case.build(), inputs), 1e-12, "the output")
    assert_equal_gradients(truth.gradients, plain_gradients, 1e-12)
    assert_equal_inputs(truth.input_gradients, of_inputs, 1e-12)


def shows_that_the_case_is_not_void(case: Architecture, time: str) -> None:
    """Every neuron fires and is silent, and scaling changes the gradient behind every pair."""
    inputs = case.inputs()
    truth = tape.run(case.build(), inputs, time=time)
    untouched, _ = gradients(case.build(), inputs)
    assert truth.pairs == sorted(case.pairs)
    assert truth.scaled
    for neuron, rate in truth.rates.items():
        assert 0.02 < rate < 0.98, f"{neuron} fires in {rate:.0%} of its steps"
    for name in truth.scaled:
        if untouched[name].numel() == 1:  # divided by its maximum, the relation of one number is 1
            continue
        change = (truth.gradients[name] - untouched[name]).abs().max() / untouched[name].abs().max()
        assert change > 1e-2, f"scaling changes the gradient of {name} by {change:.1e} alone"


def shows_its_pairs_and_reasons(case: Architecture) -> None:
    attachment = case.attach(case.build())
    absent = left_out(case, attachment)
    found = [pair for pair in pairs_of(attachment) if pair[0] not in case.frozen]
    assert found == sorted(pair for pair in case.pairs if pair[0] not in absent), str(attachment)
    for name in case.frozen:
        assert "frozen" in row_of(attachment, name)
    expected = {**case.skipped, **{name: case.either[name] for name in absent}}
    reasons = {name: reason for name, reason in reasons_of(attachment).items() if name not in case.frozen}
    assert reasons.keys() == expected.keys(), str(attachment)
    for name, pattern in expected.items():
        assert re.search(pattern, reasons[name]), f"{name}: {reasons[name]!r} says nothing of {pattern!r}"


def shows_exact_gradients(case: Architecture, time: str, steps: int = T) -> None:
    model, inputs = case.build(), case.inputs(steps=steps)
    attachment = case.attach(model, time=time)
    truth = tape.run(case.build(), inputs, alpha=ALPHA, time=time, leave_out=left_out(case, attachment))
    untouched, untouched_inputs = gradients(case.build(), inputs)
    for _ in range(2):  # the second sequence finds nothing of the first
        ours, of_inputs = gradients(model, inputs)
        assert_equal_gradients(ours, truth.gradients, 1e-10)
        others = ours.keys() - truth.scaled
        assert_equal_gradients({name: ours[name] for name in others}, {name: untouched[name] for name in others}, 1e-12)
        assert_equal_inputs(of_inputs, untouched_inputs, 1e-12)


def shows_exact_relations(case: Architecture, time: str) -> None:
    """R as it is, divided by nothing but, where it is a mean, the number of steps."""
    model, inputs = case.build(), case.inputs()
    attachment = case.attach(model, time=time, normalize="none", record=True)
    absent = left_out(case, attachment)
    truth = tape.run(case.build(), inputs, alpha=ALPHA, time=time, normalize="none", leave_out=absent)
    ours, _ = gradients(model, inputs)
    relations = {plain(name): relation for name, relation in attachment.relations.items()}
    assert_equal_gradients(relations, truth.relations, 1e-10)
    assert_equal_gradients(ours, truth.gradients, 1e-10)


def shows_the_baseline_at_alpha_zero(case: Architecture, time: str) -> None:
    model, inputs = case.build(), case.inputs()
    untouched, untouched_inputs = gradients(case.build(), inputs)
    case.attach(model, alpha=0.0, time=time)
    ours, of_inputs = gradients(model, inputs)
    assert_equal_gradients(ours, untouched, 1e-12)
    assert_equal_inputs(of_inputs, untouched_inputs, 1e-12)


def shows_the_same_outputs_to_the_bit(case: Architecture, time: str) -> None:
    model, untouched, inputs = case.build(), case.build(), case.inputs()
    attachment = case.attach(model, time=time)
    assert torch.equal(output_of(model, inputs), output_of(untouched, inputs))
    ours, theirs = model.state_dict(), untouched.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), f"{name} differs"
    attachment.detach()
    ours, _ = gradients(model, inputs)
    theirs, _ = gradients(untouched, inputs)
    assert_equal_gradients(ours, theirs, 0.0)
