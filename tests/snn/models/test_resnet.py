from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tracegrad as tg


@pytest.mark.parametrize(("name", "count"), [("resnet20", 4_331_978), ("resnet32", 7_432_138)])
def test_the_papers_networks_have_the_papers_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        model = tg.models.MODELS[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_resnet20_has_21_pairs_without_stem_and_classifier() -> None:
    a = tg.attach(tg.models.resnet20(width=4), torch.randn(1, 3, 16, 16))
    assert len(a.pairs) == 21
    assert [name for name, _ in a.skipped] == ["conv", "classifier"]
    assert dict(a.pairs)["stages.1.0.shortcut"] == dict(a.pairs)["stages.1.0.conv2"] == "stages.1.0.neuron2"


def test_every_first_block_projects_and_no_other() -> None:
    model = tg.models.resnet32(width=4)
    projects = [[block.shortcut is not None for block in stage] for stage in model.stages]
    assert projects == [[True, False, False, False, False]] * 3


def test_an_image_is_the_same_current_at_every_step() -> None:
    torch.manual_seed(0)
    model, images = (
        tg.models.resnet(blocks=[1, 1], width=4, time_steps=3).double().eval(),
        torch.randn(2, 3, 8, 8).double(),
    )
    outputs = model(images)
    assert outputs.shape == (3, 2, 10)
    torch.testing.assert_close(model(images.expand(3, *images.shape)), outputs)


def test_frames_bring_their_own_number_of_steps() -> None:
    assert tg.models.resnet(blocks=[1], width=4, in_channels=2)(torch.randn(6, 2, 2, 8, 8)).shape == (6, 2, 10)


def test_norms_start_from_the_neurons_threshold() -> None:
    model = tg.models.resnet(blocks=[1], width=4, neuron=lambda: tg.IF(threshold=2.0))
    assert torch.equal(model.norm.weight, torch.full((4,), 2.0))
    assert torch.allclose(model.stages[0][0].norm2.weight, torch.full((4,), 2 / 2**0.5))
    assert isinstance(model.neuron, tg.IF)


@pytest.mark.parametrize("build", [partial(tg.models.resnet, blocks=[1, 2]), tg.models.resnet19])
@pytest.mark.parametrize("norm", ["tdbn", "tebn"])
def test_the_relu_twin_is_a_plain_residual_network(build: Callable[..., nn.Module], norm: str) -> None:
    """With tdBN, the spiking network's weights fit it; with TEBN all but the factors of the steps do."""
    torch.manual_seed(0)
    spiking, twin = build(width=4, norm=norm), build(width=4, norm=norm, neuron=nn.ReLU, time_steps=1)
    shapes = [
        {name: each.shape for name, each in model.state_dict().items() if "step_scale" not in name}
        for model in (spiking, twin)
    ]
    assert shapes[0] == shapes[1]
    assert [name for name, _ in spiking.named_modules()] == [name for name, _ in twin.named_modules()]
    assert torch.equal(twin.norm.weight, torch.ones(4))
    images = torch.randn(5, 3, 8, 8)
    outputs = twin(images)
    assert outputs.shape == (1, 5, 10)
    torch.testing.assert_close(outputs[0], plain_resnet(twin, images))


def plain_resnet(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """ReLU and batch normalisation of images, from the weights of a twin."""

    def norm(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)

    x = norm(model.conv(images), model.norm).relu()
    for block in (block for stage in model.stages for block in stage):
        shortcut = x if block.shortcut is None else norm(block.shortcut(x), block.shortcut_norm)
        x = norm(block.conv1(x), block.norm1).relu()
        x = (norm(block.conv2(x), block.norm2) + shortcut).relu()
    x = x.mean((2, 3))
    return model.classifier(x if model.hidden is None else model.hidden(x).relu())


def test_resnet19_is_zheng_et_als() -> None:
    with torch.device("meta"):
        model = tg.models.resnet19()
    assert [[block.conv2.out_channels for block in stage] for stage in model.stages] == [
        [128] * 3,
        [256] * 3,
        [512] * 2,
    ]
    assert [tuple(layer.weight.shape) for layer in (model.conv, model.hidden, model.classifier)] == [
        (128, 3, 3, 3),
        (256, 512),
        (10, 256),
    ]


def test_the_hidden_layer_pairs() -> None:
    a = tg.attach(tg.models.resnet19(width=4), torch.randn(1, 3, 8, 8))
    assert dict(a.pairs)["hidden"] == "hidden_neuron"
    assert [name for name, _ in a.skipped] == ["conv", "classifier"]
    assert len(a.pairs) == 2 * 8 + 3 + 1


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 8, 8), (2, 2, 4, 8, 8)])
def test_input_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the input must be images \[B, 3, H, W\] or frames \[T, B, 3, H, W\]"):
        tg.models.resnet(blocks=[1], width=4)(torch.zeros(shape))


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="unknown norm 'bn'; the known ones are .*'tdbn'"):
        tg.models.resnet20(norm="bn")
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        tg.models.resnet20(width=0)
    with pytest.raises(ValueError, match="unknown model 'resnet21'; the known ones are .*'resnet19', 'resnet20'"):
        tg.models.MODELS["resnet21"]
