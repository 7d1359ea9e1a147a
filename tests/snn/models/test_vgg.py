import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tracegrad as tg

CONVOLUTIONS = ((3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512))


def test_vgg11_has_the_parameters_of_configuration_a() -> None:
    with torch.device("meta"):
        model = tg.models.vgg11()
    by_hand = sum(9 * before * after + 2 * after for before, after in CONVOLUTIONS) + 512 * 10 + 10
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == 9_228_362
    layers = [layer for stage in model.stages for layer in stage]
    assert [tuple(layer.conv.weight.shape[1::-1]) for layer in layers] == list(CONVOLUTIONS)


def test_every_convolution_but_the_first_pairs() -> None:
    a = tg.attach(tg.models.vgg11(width=4), torch.randn(1, 3, 16, 16))
    assert len(a.pairs) == 7
    assert [name for name, _ in a.skipped] == ["stages.0.0.conv", "classifier"]


def test_a_still_image_is_the_same_frame_at_every_step() -> None:
    torch.manual_seed(0)
    model, images = tg.models.vgg11(width=4, time_steps=3).double().eval(), torch.randn(2, 3, 16, 16).double()
    outputs = model(images)
    assert outputs.shape == (3, 2, 10)
    torch.testing.assert_close(model(images.expand(3, *images.shape)), outputs)


def test_what_the_pools_pass_on_are_spikes() -> None:
    torch.manual_seed(0)
    model, passed = tg.models.vgg11(width=4), []
    for pool in model.pools:
        pool.register_forward_hook(lambda _pool, _inputs, output: passed.append(output))
    model(torch.randn(2, 3, 16, 16))
    assert len(passed) == 4
    assert all(set(each.unique().tolist()) <= {0, 1} for each in passed)


def test_the_relu_twin_is_a_plain_vgg() -> None:
    torch.manual_seed(0)
    twin, x = tg.models.vgg11(width=4, neuron=nn.ReLU, time_steps=1), torch.randn(5, 3, 32, 32)
    outputs = twin(x)
    for stage, layers in enumerate(twin.stages):
        x = F.max_pool2d(x, 2) if stage else x
        for layer in layers:
            x = F.batch_norm(layer.conv(x), None, None, layer.norm.weight, layer.norm.bias, training=True).relu()
    torch.testing.assert_close(outputs[0], twin.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"images must be at least 16 x 16, not \[8, 8\]"):
        tg.models.vgg11(width=4)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"the input must be images \[B, 3, H, W\]"):
        tg.models.vgg11(width=4)(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        tg.models.vgg11(width=0)
