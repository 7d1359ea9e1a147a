import pytest
import torch

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


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 8, 8), (2, 2, 4, 8, 8)])
def test_input_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the input must be images \[B, 3, H, W\] or frames \[T, B, 3, H, W\]"):
        tg.models.resnet(blocks=[1], width=4)(torch.zeros(shape))


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="unknown norm 'bn'; the known ones are .*'tdbn'"):
        tg.models.resnet20(norm="bn")
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        tg.models.resnet20(width=0)
    with pytest.raises(ValueError, match="unknown model 'resnet21'; the known ones are 'resnet', 'resnet20'"):
        tg.models.MODELS["resnet21"]
