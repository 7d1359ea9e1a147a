import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tracegrad as tg

PARAMETERS = sum(
    [
        3 * 64 * 9 + 2 * 64,  # the stem and its norm
        *(
            9 * (before * after + 5 * after * after) + 6 * 2 * after + before * after + 2 * after
            for before, after in ((64, 64), (64, 128), (128, 256))
        ),
        256 * 10 + 10,
    ]
)
"""Three blocks a stage: six 3x3 convolutions with norms, a 1x1 convolution with a norm."""


@pytest.mark.parametrize("name", ["resnet20", "sew_resnet20", "ms_resnet20"])
def test_all_blocks_have_the_weights_of_basic_ones(name: str) -> None:
    with torch.device("meta"):
        model = tg.models.MODELS[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS == 4_331_978
    assert model.state_dict().keys() == tg.models.resnet20(width=4).state_dict().keys()


def test_spike_element_wise_blocks_pass_sums_of_spikes() -> None:
    torch.manual_seed(0)
    model, sums = tg.models.resnet(blocks=[3], width=4, block="sew"), []
    for block in model.stages[0]:
        block.register_forward_hook(lambda _block, _inputs, output: sums.append(output))
    model(torch.randn(4, 3, 8, 8))
    assert set(sums[0].unique().tolist()) == {0, 1, 2}
    assert sums[2].max() <= 4
    assert all(torch.equal(each, each.round()) for each in sums)


def test_the_norms_of_spike_element_wise_blocks_are_those_of_plain_paths() -> None:
    block = tg.models.resnet(blocks=[1], width=4, block="sew").stages[0][0]
    for norm in (block.norm1, block.norm2, block.shortcut_norm):
        assert torch.equal(norm.weight, torch.full((4,), 0.5))


def test_membrane_shortcut_blocks_pass_currents_and_every_convolution_but_stem_and_shortcuts_gets_spikes() -> None:
    torch.manual_seed(0)
    model, inputs = tg.models.resnet(blocks=[2, 1], width=4, block="ms").eval(), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, given, __, name=name: inputs.update({name: given[0]}))
    model(torch.randn(4, 3, 8, 8))
    real = {name for name, x in inputs.items() if not ((x == 0) | (x == 1)).all()}
    assert real == {"conv", "stages.0.0.shortcut", "stages.1.0.shortcut"}


@pytest.mark.parametrize("block", ["sew", "ms"])
@pytest.mark.parametrize("norm", ["tdbn", "tebn", "time_mean"])
def test_a_still_image_is_the_same_frame_at_every_step(block: str, norm: str) -> None:
    torch.manual_seed(0)
    model = tg.models.resnet(blocks=[1, 2], width=4, time_steps=3, block=block, norm=norm).double().eval()
    images = torch.randn(2, 3, 8, 8).double()
    torch.testing.assert_close(model(images), model(images.expand(3, *images.shape)))


@pytest.mark.parametrize("block", ["sew", "ms"])
def test_the_relu_twin_is_a_plain_residual_network(block: str) -> None:
    torch.manual_seed(0)
    twin = tg.models.resnet(blocks=[1, 2], width=4, time_steps=1, neuron=nn.ReLU, block=block)
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(twin(images)[0], plain_resnet(twin, images, block))


def plain_resnet(model: nn.Module, images: torch.Tensor, block: str) -> torch.Tensor:
    """ReLU and batch normalisation of images, from the weights of a twin."""

    def norm(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)

    x = norm(model.conv(images), model.norm)
    x = x.relu() if block == "sew" else x
    for each in (each for stage in model.stages for each in stage):
        shortcut = x if each.shortcut is None else norm(each.shortcut(x), each.shortcut_norm)
        if block == "sew":
            inner = norm(each.conv1(x), each.norm1).relu()
            x = norm(each.conv2(inner), each.norm2).relu() + (shortcut if each.shortcut is None else shortcut.relu())
        else:
            inner = norm(each.conv1(x.relu()), each.norm1).relu()
            x = norm(each.conv2(inner), each.norm2) + shortcut
    return model.classifier((x if block == "sew" else x.relu()).mean((2, 3)))


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown block 'bottleneck'; the known ones are 'basic', 'ms', 'sew'"):
        tg.models.resnet(block="bottleneck")
