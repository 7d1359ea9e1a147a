import math

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.snn.fire_on import fire_on
from tracegrad.snn.models.resnet import ResNet
from tracegrad.snn.norms import NORMS, TDBatchNorm2d, TimeMeanBatchNorm2d


def test_statistics_are_taken_over_time_batch_and_space() -> None:
    x = torch.randn(4, 8, 3, 5, 5, dtype=torch.float64) * 3 + 1
    norm = tg.TDBatchNorm2d(3, scale=0.5, threshold=0.8).double()
    y = norm(x)
    mean = x.mean((0, 1, 3, 4), keepdim=True)
    variance = (x - mean).square().mean((0, 1, 3, 4), keepdim=True)
    torch.testing.assert_close(y, 0.4 * (x - mean) / (variance + norm.eps).sqrt())
    torch.testing.assert_close(norm(x.flatten(0, 1)), y.flatten(0, 1))


def test_time_mean_normalises_the_mean_over_time_and_repeats_it() -> None:
    x = torch.randn(4, 8, 3, 5, 5, dtype=torch.float64) * 3 + 1
    y = TimeMeanBatchNorm2d(3, scale=0.1, threshold=0.8).double()(x)
    mean = x.mean(0)
    expected = 0.8 * torch.nn.functional.batch_norm(mean, None, None, training=True)
    assert y.shape == x.shape
    for step in y:
        torch.testing.assert_close(step, expected)


def test_currents_have_the_variance_of_the_threshold_squared_where_they_arrive() -> None:
    """On a plain path, and behind each addition of two norms."""
    torch.manual_seed(0)
    threshold = 0.5
    model = ResNet((2, 2), width=16)
    arriving: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, tg.LIF):
            module.register_forward_pre_hook(lambda _, args, name=name: arriving.__setitem__(name, args[0].detach()))
    model(torch.randn(32, 3, 16, 16))
    plain = ["neuron", *(f"stages.{stage}.{block}.neuron1" for stage in (0, 1) for block in (0, 1))]
    additions_of_two_norms = [f"stages.{stage}.0.neuron2" for stage in (0, 1)]
    for name in (*plain, *additions_of_two_norms):
        variance = arriving[name].var((0, 1, 3, 4)).mean().item()
        assert math.isclose(variance, threshold**2, rel_tol=0.1), f"{name}: variance {variance}, not {threshold**2}"


def test_tebn_weights_the_steps_of_batch_normalisation() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 3, 5, 5, dtype=torch.float64) * 3 + 1
    norm = tg.TEBatchNorm2d(3, time_steps=4, scale=0.5, threshold=0.8).double()
    assert norm.step_scale.tolist() == [1, 1, 1, 1]
    with torch.no_grad():
        norm.step_scale.copy_(torch.tensor([0.5, 1.0, -2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    y = norm(x)
    mean = x.mean((0, 1, 3, 4), keepdim=True)
    variance = (x - mean).square().mean((0, 1, 3, 4), keepdim=True)
    normalised = 0.4 * (x - mean) / (variance + norm.eps).sqrt() + norm.bias.reshape(1, 1, 3, 1, 1)
    for step, factor in enumerate((0.5, 1.0, -2.0, 3.0)):
        torch.testing.assert_close(y[step], factor * normalised[step])
    weights = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * weights).sum(), norm.step_scale)
    torch.testing.assert_close(gradient, (normalised * weights).sum((1, 2, 3, 4)))


def test_tebn_starts_at_1_alone_and_at_the_scaled_threshold_in_a_network() -> None:
    assert torch.equal(tg.TEBatchNorm2d(3, 4).weight, torch.ones(3))
    model = tg.models.resnet(blocks=[1], width=4, norm="tebn", time_steps=3, neuron=lambda: tg.LIF(threshold=0.8))
    assert torch.equal(model.norm.weight, torch.full((4,), 0.8))
    assert torch.allclose(model.stages[0][0].norm2.weight, torch.full((4,), 0.8 / 2**0.5))
    assert model.norm.step_scale.shape == (3,)


def test_tebn_at_another_t() -> None:
    with pytest.raises(ValueError, match=r"each of T = 4 steps: currents must be \[4, B, C, H, W\], not .* \[2, 3, 3,"):
        tg.TEBatchNorm2d(3, 4)(torch.randn(2, 3, 3, 5, 5))
    model = tg.models.resnet(blocks=[1], width=4, norm="tebn", time_steps=4)
    for frames in (torch.randn(6, 2, 3, 8, 8), torch.randn(1, 2, 3, 8, 8)):
        with pytest.raises(ValueError, match="each of T = 4 steps"):
            model(frames)
    with pytest.raises(ValueError, match="time_steps must be at least 1, not 0"):
        tg.TEBatchNorm2d(3, 0)


def test_a_still_image_is_weighted_at_every_step() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 3, 5, 5)
    norm = NORMS["tebn"](3, scale=1.0, threshold=0.5, time_steps=3)
    nn.init.uniform_(norm.step_scale, -2, 2)
    currents: list[torch.Tensor] = []
    neuron = tg.LIF()
    neuron.register_forward_pre_hook(lambda _, arguments: currents.append(arguments[0]))
    fire_on(neuron, (x, norm), time_steps=3)
    (current,) = currents
    once = 0.5 * torch.nn.functional.batch_norm(x[0], None, None, training=True)
    for step, factor in enumerate(norm.step_scale):
        torch.testing.assert_close(current[step], factor * once)


def test_gradient_scaling_attaches_to_networks_with_tebn() -> None:
    a = tg.attach(tg.models.resnet20(width=4, norm="tebn"), torch.randn(1, 3, 16, 16))
    assert len(a.pairs) == 21
    assert [name for name, _ in a.skipped] == ["conv", "classifier"]


@pytest.mark.parametrize("size", [(1, 7), (7, 1), (4, 3)])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("gradient_channels_last", [True, False])
def test_one_image_in_any_layout(size: tuple[int, int], channels_last: bool, gradient_channels_last: bool) -> None:
    """PyTorch's own gradient is wrong for it where the layouts of currents and gradient differ."""

    def currents(last: bool) -> Tensor:
        x = torch.randn(2, 1, 3, *size, dtype=torch.float64)
        return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if last else x

    norm = TDBatchNorm2d(3).double()
    nn.init.normal_(norm.bias)
    x, weights = currents(channels_last)[:1].requires_grad_(), currents(gradient_channels_last)
    y = norm(x)
    y.expand_as(weights).backward(weights)

    gradient, values = weights.sum(0, keepdim=True), x.detach()
    axes = (0, 1, 3, 4)
    deviation = (values.var(axes, correction=0, keepdim=True) + norm.eps).sqrt()
    h = (values - values.mean(axes, keepdim=True)) / deviation
    scale = norm.weight.detach().view(3, 1, 1)
    expected = gradient - gradient.mean(axes, keepdim=True) - h * (gradient * h).mean(axes, keepdim=True)
    torch.testing.assert_close(y.detach(), h * scale + norm.bias.detach().view(3, 1, 1))
    torch.testing.assert_close(x.grad, expected * scale / deviation)
    torch.testing.assert_close(norm.weight.grad, (gradient * h).sum(axes))
    torch.testing.assert_close(norm.bias.grad, gradient.sum(axes))
