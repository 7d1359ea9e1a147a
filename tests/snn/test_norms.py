import math

import torch

import tracegrad as tg
from tracegrad.snn.models.resnet import ResNet
from tracegrad.snn.norms import TimeMeanBatchNorm2d


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
