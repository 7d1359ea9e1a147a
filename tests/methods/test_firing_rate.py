"""The firing rate as a term of the loss, against plain loops in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from reference import correlate, lif, normalise, scale, spike_trace
from tracegrad.methods.firing_rate import firing_rate

T, B = 4, 3
WEIGHT = 0.7


class TwoLayers(nn.Module):
    """Two layers of unequal size, so that a mean over layers would not be one over neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.neurons1 = nn.Linear(5, 7), tg.LIF()
        self.second, self.neurons2 = nn.Linear(7, 2), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neurons2(self.second(self.neurons1(self.first(x))))


@pytest.fixture
def model() -> TwoLayers:
    torch.manual_seed(1)
    model = TwoLayers().double()
    nn.init.normal_(model.second.weight, 0.2, 0.5)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(T, B, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def penalised(model: nn.Module, x: Tensor) -> Tensor:
    with firing_rate(model) as rate:
        outputs = model(x)
    return outputs.square().sum() + WEIGHT * rate.mean


def test_the_rate_is_spikes_per_neuron_step_and_example(model: TwoLayers, x: Tensor) -> None:
    with firing_rate(model) as rate:
        outputs = model(x)
    spikes1 = lif(model.first(x))
    spikes2 = lif(model.second(spikes1))
    assert torch.equal(outputs, spikes2)
    count = sum(each.sum().item() for each in (spikes1, spikes2))
    assert 0 < count < T * B * 9
    assert rate.mean.item() == pytest.approx(count / (T * B * 9), rel=1e-14)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_gradient_is_that_of_the_whole_loss(model: TwoLayers, x: Tensor) -> None:
    spikes1 = lif(model.first(x))
    spikes2 = lif(model.second(spikes1))
    loss = spikes2.square().sum() + WEIGHT * (spikes1.sum() + spikes2.sum()) / (T * B * 9)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    found = torch.autograd.grad(penalised(model, x), list(model.parameters()))
    plain = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for ours, theirs, without in zip(found, expected, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(ours, without)


def test_with_scaling_attached_the_penaltys_part_of_a_gradient_is_scaled_too(model: TwoLayers, x: Tensor) -> None:
    """A copy of the second weight for each step; the sum over steps of g(G(t), R_hat(t)), G(t) of the whole loss."""
    alpha = 0.5
    spikes1 = lif(model.first(x))
    copies = [model.second.weight.detach().clone().requires_grad_() for _ in range(T)]
    spikes2 = lif(torch.stack([spikes1[t] @ copies[t].T + model.second.bias for t in range(T)]))
    loss = spikes2.square().sum() + WEIGHT * (spikes1.sum() + spikes2.sum()) / (T * B * 9)
    steps = torch.autograd.grad(loss, copies, retain_graph=True)
    ends = spike_trace(spikes1.detach()), spike_trace(spikes2.detach())
    hats = [normalise(correlate(ends[0][t], ends[1][t], model.second), "max") for t in range(T)]
    expected = sum(scale(gradient, hat, alpha) for gradient, hat in zip(steps, hats, strict=True))
    first = torch.autograd.grad(loss, model.first.weight)[0]

    attachment = tg.attach(model, x, alpha=alpha)
    assert attachment.pairs == [("second", "neurons2")]
    found = torch.autograd.grad(penalised(model, x), [model.second.weight, model.first.weight])
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found[1], first, rtol=1e-10, atol=1e-13)
    assert not torch.allclose(found[0], sum(steps))


def test_half_precision_is_added_up_in_float32() -> None:
    model = nn.Sequential(tg.LIF())
    with firing_rate(model) as rate:
        model(torch.full((4, 2, 5000), 0.6, dtype=torch.bfloat16))
    assert rate.mean.dtype == torch.float32
    assert math.isclose(rate.mean.item(), lif(torch.full((4, 1), 0.6)).mean().item(), rel_tol=1e-6)


def test_networks_without_neurons_or_calls_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="Linear holds no spiking neuron, so it has no firing rate"),
        firing_rate(nn.Linear(2, 2)),
    ):
        pass
    with firing_rate(nn.Sequential(tg.LIF())) as rate, pytest.raises(ValueError, match="call the network inside"):
        _ = rate.mean
