"""The reference of these tests against the one of tests/reference.py, which loops over kernel positions."""

import networks
import pytest
import tape
import torch
from torch import nn

import reference
from reference import assert_near, assert_same

NAMES = (
    "conv2d-dilated",
    "conv2d-grouped",
    "conv1d-strided",
    "linear-tokens",
    "stack",
    "residual",
    "fork",
    "flattened",
)


class Looped(reference.LIF):
    def over_time(self, currents: torch.Tensor) -> torch.Tensor:
        return self(currents)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
@pytest.mark.parametrize("normalize", ["max", "none"])
def test_the_two_references_agree(name: str, time: str, normalize: str) -> None:
    case = networks.CASES[name]
    x, method = case.input(), {"time": time, "normalize": normalize, "alpha": 0.3}
    theirs = reference.run(case.network(Looped), x, **method)
    ours = tape.run(case.network(Looped), [x], **method)
    assert ours.pairs == theirs.pairs
    assert_near(ours.output, theirs.output, 1e-12, "the output")
    assert_same(ours.gradients, theirs.gradients, 1e-12)
    assert_same(ours.relations, theirs.relations, 1e-12)
    assert_near(ours.input_gradients[0], theirs.input_gradient, 1e-12, "the input's gradient")


def relations_of(time: str, mask: torch.Tensor) -> torch.Tensor:
    """R of a linear layer of one input and one output, whose ends fire in all steps: (1, 1 + d, 1 + d + d^2) traced."""
    layer = nn.Linear(1, 1, bias=False).double()
    synapse = tape.Synapse(layer.weight, tape.compute_of(layer))
    for _ in range(3):
        synapse.step(torch.ones(2, 1, dtype=torch.float64))
    synapse.posts["neuron"] = [torch.ones(2, 1, dtype=torch.float64)] * 3
    return torch.cat(synapse.relations(time, mask)).flatten()


def test_masked_steps_add_no_spikes_and_no_products() -> None:
    """The second example has two steps, or misses the middle one."""
    d = reference.DECAY
    one, two, three = 1.0, (1 + d) ** 2, (1 + d + d * d) ** 2
    ends_early = torch.tensor([[True, True], [True, True], [True, False]])
    expected = {
        "per_step": [2 * one, 2 * two, three],
        "mean": [(one + two + three) / 3 + (one + two) / 2],
        "final": [three + two],
    }
    for time, values in expected.items():
        assert_near(relations_of(time, ends_early), torch.tensor(values, dtype=torch.float64), 1e-14, time)
    gap, after_gap = torch.tensor([[True, True], [True, False], [True, True]]), (1 + d * d) ** 2
    expected = {
        "per_step": [2 * one, two, three + after_gap],
        "mean": [(one + two + three) / 3 + (one + after_gap) / 2],
        "final": [three + after_gap],
    }
    for time, values in expected.items():
        assert_near(relations_of(time, gap), torch.tensor(values, dtype=torch.float64), 1e-14, time)
