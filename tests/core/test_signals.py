"""Signals that are read several times in one backward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import reference
import tracegrad as tg
from tracegrad.core.equations import signals
from tracegrad.core.equations.signals import SignalReader, SpikeTrain


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The spikes of which traces were computed."""
    found: list[Tensor] = []
    trace = signals._trace
    monkeypatch.setattr(signals, "_trace", lambda steps, spikes: found.append(spikes) or trace(steps, spikes))
    return found


def spikes(seed: int = 0) -> Tensor:
    return (torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed)) > 0).double()


def in_one_backward_pass(check: Callable[[], None]) -> None:
    class Within(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            check()
            return gradient

    Within.apply(torch.zeros((), requires_grad=True)).backward()


def test_a_signal_is_computed_once(computed: list[Tensor]) -> None:
    in_one_backward_pass(lambda: once(computed))


def once(computed: list[Tensor]) -> None:
    reader, s = SignalReader(), spikes()
    folded = s.flatten(0, 1)
    for view in (s, folded.unflatten(0, (4, 3)), s.view_as(s)):
        torch.testing.assert_close(reader.read("trace", SpikeTrain(view)), reference.spike_trace(s))
    assert len(computed) == 1
    torch.testing.assert_close(reader.read_last("trace", SpikeTrain(s)), reference.spike_trace(s)[-1])


def test_spikes_that_were_written_over_are_others() -> None:
    in_one_backward_pass(written_over)


def written_over() -> None:
    reader, s = SignalReader(), spikes()
    reader.read("trace", SpikeTrain(s))
    s.copy_(spikes(1))
    torch.testing.assert_close(reader.read("trace", SpikeTrain(s)), reference.spike_trace(spikes(1)))
    part = reader.read("trace", SpikeTrain(s[:, :2]))
    torch.testing.assert_close(part, reference.spike_trace(spikes(1))[:, :2])


def test_memory_that_is_given_to_other_spikes_is_not_mistaken() -> None:
    in_one_backward_pass(other_spikes)


def other_spikes() -> None:
    reader = SignalReader()
    for seed in range(20):  # each tensor is freed before the next one is made, so that addresses recur
        torch.testing.assert_close(reader.read("trace", SpikeTrain(spikes(seed))), reference.spike_trace(spikes(seed)))


def test_each_trace_of_a_residual_network_is_computed_once(computed: list[Tensor]) -> None:
    model = tg.models.resnet(blocks=(2, 1), width=4)
    images = torch.randn(2, 3, 8, 8)
    assert len(tg.attach(model, images).pairs) == 8  # each with two ends
    model(images).square().sum().backward()
    assert len(computed) == 7, "one trace for each of the seven layers of neurons"
