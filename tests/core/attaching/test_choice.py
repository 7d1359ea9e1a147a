"""Which synapses are scaled: `include` and `exclude`; parts of a model without gradients."""

import pytest
import torch
from spiking import TimeFirst
from torch import Tensor, nn

import tracegrad as tg
from attaching.models import T, assert_untouched

B = 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Blocks(nn.Module):
    """Synapses stem, blocks.0.fc, blocks.0.out, blocks.1.fc, blocks.1.out, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.neuron, self.head = nn.Linear(6, 6), TimeFirst(), nn.Linear(6, 3)
        parts = {"fc": nn.Linear, "n0": TimeFirst, "out": nn.Linear, "n1": TimeFirst}
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: kind(6, 6) if kind is nn.Linear else kind() for name, kind in parts.items()})
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron(self.stem(x))
        for block in self.blocks:
            for layer in block.values():
                x = layer(x)
        return self.head(x)


EVERY = ("stem", "blocks.0.fc", "blocks.0.out", "blocks.1.fc", "blocks.1.out")


def chosen(**options) -> tuple[str, ...]:
    a = tg.attach(Blocks(), spikes(T, B, 6), spiking_input=True, **options)
    assert "no post-synaptic neuron" in dict(a.skipped)["head"]
    assert sorted([*(name for name, _ in a.pairs), *dict(a.skipped)]) == sorted([*EVERY, "head"])
    return tuple(name for name, _ in a.pairs)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EVERY),
        ({"include": "stem"}, ("stem",)),
        ({"include": ["stem", "blocks.1.out"]}, ("stem", "blocks.1.out")),
        ({"include": "blocks.*"}, EVERY[1:]),
        ({"include": "blocks.?.fc"}, ("blocks.0.fc", "blocks.1.fc")),
        ({"include": ("blocks.[!0].*", "head")}, ("blocks.1.fc", "blocks.1.out")),
        ({"include": {"*.fc": 1, "*.out": 2}.keys()}, EVERY[1:]),
        ({"exclude": "stem"}, EVERY[1:]),
        ({"exclude": ["*.fc", "head"]}, ("stem", "blocks.0.out", "blocks.1.out")),
        ({"exclude": []}, EVERY),
        ({"include": "blocks.*", "exclude": "*.fc"}, ("blocks.0.out", "blocks.1.out")),
        ({"include": ["stem", "*.fc"], "exclude": "blocks.1.*"}, ("stem", "blocks.0.fc")),
    ],
    ids=str,
)
def test_patterns_choose_synapses(options: dict, expected: tuple[str, ...]) -> None:
    assert chosen(**options) == expected


def test_the_table_says_which_pattern_left_a_synapse_out() -> None:
    a = tg.attach(Blocks(), spikes(T, B, 6), spiking_input=True, include=["blocks.*"], exclude=["*.fc", "head"])
    reasons = dict(a.skipped)
    assert "include='blocks.*'" in reasons["stem"]
    assert "exclude='*.fc', 'head'" in reasons["blocks.0.fc"]


def test_what_is_left_out_has_the_baselines_gradient() -> None:
    model, x = Blocks(), spikes(T, B, 6)
    model(x).square().sum().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    tg.attach(model, x, spiking_input=True, alpha=0.9, exclude="stem")
    model.zero_grad()
    model(x).square().sum().backward()
    assert torch.equal(model.stem.weight.grad, plain["stem.weight"])
    assert not torch.allclose(model.blocks[0].fc.weight.grad, plain["blocks.0.fc.weight"])


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["block.*", "stem.weight", "neuron", "Stem", ""])
def test_a_pattern_that_fits_no_synapse_lists_what_there_is(option: str, pattern: str) -> None:
    model = Blocks()
    with pytest.raises(ValueError) as error:
        tg.attach(model, spikes(T, B, 6), spiking_input=True, **{option: ["stem", pattern]})
    assert f"{option}={pattern!r} fits no synapse" in str(error.value)
    assert ", ".join([*EVERY, "head"]) in str(error.value)
    assert_untouched(model)


# A part of the model without gradients


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), TimeFirst(), nn.Linear(6, 6), TimeFirst())


class Backbone(nn.Module):
    """A part that is not trained, its spikes under torch.no_grad, and layers that are."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.layers = layers(), layers()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            s = self.backbone(x)
        return self.layers(s)


def test_spikes_of_a_part_without_gradients_drive_what_is_trained() -> None:
    """Gradients as if that part were frozen, but computed with gradients."""
    found = []
    for forward in (Backbone.forward, lambda self, x: self.layers(self.backbone(x))):
        torch.manual_seed(0)
        model = Backbone().double()
        model.backbone.requires_grad_(False)
        model.forward = forward.__get__(model)
        x = spikes(T, B, 6).double()
        a = tg.attach(model, x, spiking_input=True, alpha=0.9)
        scaled = [pair for pair in a.pairs if pair[0].startswith("layers")]
        assert scaled == [("layers.0", "layers.1"), ("layers.2", "layers.3")], str(a)
        model(x).square().sum().backward()
        found.append(model.layers[0].weight.grad)
    assert found[0].any()
    assert torch.equal(*found)
    a = tg.attach(Backbone(), spikes(T, B, 6), spiking_input=True)
    assert "computed without gradients" in dict(a.skipped)["backbone.0"]
