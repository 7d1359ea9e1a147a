"""Spike traces (Eq. 5) against the loop, the closed form and numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
import tracegrad as tg

spike_trains = st.builds(
    lambda shape, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) > 0.3).double(),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 10**6),
)
decays = st.floats(0.0, 1.0)


def test_by_hand() -> None:
    spikes = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    trace = tg.spike_trace(spikes, decay=0.5)
    assert trace.tolist() == [1.0, 0.5, 1.25, 1.625]


def test_decay_is_one_over_e_by_default() -> None:
    trace = tg.spike_trace(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert trace.tolist() == pytest.approx([1.0, math.exp(-1), math.exp(-2)], rel=1e-15)


@settings(deadline=None, max_examples=50)
@given(spike_trains, decays)
def test_matches_the_loop(spikes: Tensor, decay: float) -> None:
    torch.testing.assert_close(tg.spike_trace(spikes, decay), reference.spike_trace(spikes, decay), rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=50)
@given(spike_trains, decays)
def test_is_the_sum_of_decayed_spikes(spikes: Tensor, decay: float) -> None:
    steps = range(len(spikes))
    closed = torch.stack([sum(decay ** (t - s) * spikes[s] for s in range(t + 1)) for t in steps])
    torch.testing.assert_close(tg.spike_trace(spikes, decay), closed, rtol=1e-12, atol=1e-300)


@settings(deadline=None, max_examples=25)
@given(spike_trains)
def test_without_decay_it_counts_and_with_full_decay_it_forgets(spikes: Tensor) -> None:
    assert torch.equal(tg.spike_trace(spikes, 1.0), spikes.cumsum(0))
    assert torch.equal(tg.spike_trace(spikes, 0.0), spikes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_shape_and_precision_and_leaves_its_input_alone(dtype: torch.dtype) -> None:
    spikes = torch.ones(4, 2, 3, 5, 5, dtype=dtype)
    trace = tg.spike_trace(spikes)
    assert trace.shape == spikes.shape
    assert trace.dtype == dtype
    assert torch.equal(spikes, torch.ones_like(spikes))


@pytest.mark.parametrize("decay", [-0.1, 1.5, math.nan])
def test_decay_outside_zero_to_one_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"{decay}"):
        tg.spike_trace(torch.ones(3, 2), decay)


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_spikes_without_a_step_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="T"):
        tg.spike_trace(torch.ones(shape))
