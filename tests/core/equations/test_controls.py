"""What controls compute: expectations over shuffled times, the first part of an SVD."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.controls import CONTROLS, ControlMemory
from tracegrad.core.equations.convolutions import ConvolutionGeometry
from tracegrad.core.equations.expected import all_steps, expected_train
from tracegrad.core.equations.rank_one import first_part
from tracegrad.core.equations.relation import RELATIONS, TimeMode, relate
from tracegrad.core.equations.signals import SignalReader, SpikeTrain

T, B, SHUFFLES = 6, 3, 1000


def spikes(*shape: int, seed: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).double()


def relation(name: str, time: TimeMode, pre: SpikeTrain, post: SpikeTrain) -> Tensor:
    """R of a convolution with stride and padding."""
    geometry = ConvolutionGeometry((2,), (1,), (1,), 1, (0,))
    weight = torch.empty(2, 3, 3, dtype=torch.float64)
    return torch.stack(relate(RELATIONS[name], time, Activity(geometry, weight, pre.spikes, pre, post, SignalReader())))


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
@pytest.mark.parametrize("name", ["positive", "causal", "anticausal", "coincidence"])
def test_counts_is_the_mean_relation_of_spikes_at_shuffled_times(name: str, time: TimeMode) -> None:
    """Within 3 standard errors: the sum of R over all weights, and but for a chance of 2 % single weights and steps."""
    pre, post = spikes(T, B, 3, 5, seed=0), spikes(T, B, 2, 3, seed=1)
    generator = torch.Generator().manual_seed(2)

    def shuffled(train: Tensor) -> SpikeTrain:
        order = torch.rand(train.shape, generator=generator).argsort(0)
        return SpikeTrain(train.gather(0, order))

    found = torch.stack([relation(name, time, shuffled(pre), shuffled(post)) for _ in range(SHUFFLES)])
    expected = relation(
        name, time, *(SpikeTrain(expected_train(x.sum(0), all_steps(T, x.device), 0, T).spikes) for x in (pre, post))
    )
    whole = found.flatten(1).sum(1)
    assert (whole.mean() - expected.sum()).abs() <= 3 * whole.std() / SHUFFLES**0.5
    errors = (found.mean(0) - expected).abs() / (found.std(0) / SHUFFLES**0.5).clamp(min=1e-12)
    assert (errors > 3).double().mean() <= 0.02


def test_expected_traces_are_the_traces_of_expected_spikes() -> None:
    x = spikes(T, B, 4, seed=0)
    train = expected_train(x.sum(0), all_steps(T, x.device), 0, T)
    torch.testing.assert_close(train.trace, SignalReader().read("trace", SpikeTrain(train.spikes)))
    later = expected_train(x.sum(0), all_steps(T, x.device), 2, 3)
    assert torch.equal(later.trace, train.trace[2:5])


def test_masked_steps_expect_nothing() -> None:
    counted = torch.ones(T, B, dtype=torch.bool)
    counted[4:, 0] = False
    train = expected_train(torch.full((B, 2), 2.0), counted, 0, T)
    assert (train.spikes[:4, 0] == 0.5).all()
    assert not train.spikes[4:, 0].any()
    torch.testing.assert_close(train.spikes[:, 1], torch.full((T, 2), 2 / T))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_the_first_part_is_that_of_the_decomposition(
    groups: int, outputs: int, inputs: int, positive: bool, warm: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(groups, outputs, inputs, generator=generator, dtype=torch.float64)
    matrices = matrices.abs() if positive else matrices
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    assume(s.shape[1] == 1 or bool((s[:, 1] < 0.95 * s[:, 0]).all()))
    expected = s[:, :1, None] * u[:, :, :1] @ v[:, :1]
    start = torch.randn(groups, inputs, generator=generator, dtype=torch.float64) if warm else None
    start = None if start is None else start / start.norm(dim=1, keepdim=True)
    found, into = first_part(matrices, start)
    assert (found - expected).abs().max() <= 1e-10 * s.max()
    torch.testing.assert_close(into.norm(dim=1), torch.ones(groups, dtype=torch.float64))


def test_the_first_part_of_nothing_is_nothing() -> None:
    found, into = first_part(torch.zeros(2, 3, 4, dtype=torch.float64))
    assert not found.any()
    assert into.isfinite().all()


def test_a_start_that_has_nothing_of_the_first_part_comes_to_it() -> None:
    matrix = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))[None]
    found, _ = first_part(matrix, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 3.0], dtype=torch.float64))[None])


def test_spikes_of_another_image() -> None:
    train = SpikeTrain(spikes(T, 3, 2, seed=0), spikes(T, 3, 2, seed=1))
    rolled = CONTROLS["other_image"].post_train(train)
    assert torch.equal(rolled.spikes, train.spikes[:, [2, 0, 1]])
    assert torch.equal(rolled.trace, train.trace[:, [2, 0, 1]])
    with pytest.raises(ValueError, match="the batch needs two"):
        CONTROLS["other_image"].post_train(SpikeTrain(spikes(T, 1, 2, seed=0)))


def test_rates_of_both_ends() -> None:
    hat, memory = torch.rand(2, 3, 4), ControlMemory("", 0)
    pre, post = (CONTROLS[name].normalized(hat, memory) for name in ("pre_rate", "post_rate"))
    for group, row, column in ((0, 2, 1), (1, 0, 3)):
        torch.testing.assert_close(pre[group, row, column], hat[group, :, column].mean())
        torch.testing.assert_close(post[group, row, column], hat[group, row].mean())
