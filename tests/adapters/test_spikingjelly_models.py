"""SpikingJelly's own networks: what pairs, and why the rest does not, against lists made by hand from their code."""

import itertools
from collections.abc import Callable

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.layer.attention import QKAttention, SpikingSelfAttention
from spikingjelly.activation_based.model import (
    ms_resnet,
    parametric_lif_net,
    sew_resnet,
    spikformer,
    spiking_resnet,
    spiking_vgg,
)
from torch import Tensor, nn

import tracegrad as tg

DATA = "no pre-synaptic spikes: its input is the data (spiking_input=True if these are spikes)"
NO_NEURON = "no post-synaptic neuron: its current reaches none"
POOLED = (
    "its current is pooled (MaxPool2DWithIndices) on its way to the neuron (through_pools=True looks through pools)"
)
IF = {"spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan(), "num_classes": 10}


def attached(model: nn.Module, example: Tensor) -> tg.Attachment:
    functional.set_step_mode(model, "m")
    return tg.attach(model, example)


def assert_listed(attachment: tg.Attachment, pairs: dict[str, str], skipped: dict[str, str]) -> None:
    assert dict(attachment.pairs) == pairs
    assert len(attachment.pairs) == len(pairs), "a synapse is paired more than once"
    assert dict(attachment.skipped) == skipped


def frames(size: int = 32) -> Tensor:
    return torch.randn(2, 1, 3, size, size, generator=torch.Generator().manual_seed(0))


def resnet_pairs(shortcut_neuron: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for stage in (1, 2, 3, 4):
        for block in (f"layer{stage}.0", f"layer{stage}.1"):
            pairs |= {f"{block}.conv1": f"{block}.sn1", f"{block}.conv2": f"{block}.sn2"}
        if stage > 1:
            pairs[f"layer{stage}.0.downsample.0"] = f"layer{stage}.0.{shortcut_neuron}"
    return pairs


@pytest.mark.parametrize("cnf", ["ADD", "AND", "IAND"])
def test_sew_resnet18(cnf: str) -> None:
    attachment = attached(sew_resnet.sew_resnet18(cnf=cnf, **IF), frames())
    assert_listed(attachment, resnet_pairs("downsample_sn"), {"conv1": DATA, "fc": NO_NEURON})
    assert "gradient scaling of 19 of 21 synapses" in str(attachment)


def test_spiking_resnet18_whose_shortcut_is_added_to_the_current_in_place() -> None:
    attachment = attached(spiking_resnet.spiking_resnet18(**IF), frames())
    assert_listed(attachment, resnet_pairs("sn2"), {"conv1": DATA, "fc": NO_NEURON})


def test_spiking_vgg11_bn(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = [8, "M", 8, "M", 8, 8, "M", 8, 8, "M", 8, 512, "M"]  # the widths of the published one are 64 to 512
    monkeypatch.setitem(spiking_vgg.cfgs, "A", narrow)
    attachment = attached(spiking_vgg.spiking_vgg11_bn(**IF), frames())
    convolutions = (4, 8, 11, 15, 18, 22, 25)
    pairs = {f"features.{place}": f"features.{place + 2}" for place in convolutions}
    pairs |= {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}
    assert_listed(attachment, pairs, {"features.0": DATA, "classifier.6": NO_NEURON})


@pytest.mark.parametrize("patch_size", [4, 16])
def test_spikformer(patch_size: int) -> None:
    size = 4 * patch_size
    model = spikformer.Spikformer(
        T=2,
        img_size_h=size,
        img_size_w=size,
        patch_size=patch_size,
        num_classes=10,
        embed_dims=16,
        num_heads=2,
        depths=2,
    )
    attachment = attached(model, frames(size)[0])
    stem = "patch_embed.stages.{}.conv_bn.block.0"
    pairs = {"patch_embed.positional_encoding.conv_bn.block.0": "patch_embed.positional_encoding.neuron"}
    for block in ("blocks.0", "blocks.1"):
        pairs |= {
            f"{block}.attn.qkv_conv_bn.0": f"{block}.attn.qkv_lif",
            f"{block}.attn.proj_conv_bn.0": f"{block}.attn.proj_lif",
            f"{block}.mlp.fc1.0": f"{block}.mlp.neuron1",
            f"{block}.mlp.fc2.0": f"{block}.mlp.neuron2",
        }
    skipped = {stem.format(0): DATA, "head": NO_NEURON}
    # A pool stands between norm and neuron in the last two stages, with patches of 16 in all four.
    for stage in (1, 2, 3):
        if patch_size == 4 and stage == 1:
            pairs[stem.format(stage)] = "patch_embed.stages.1.neuron"
        else:
            skipped[stem.format(stage)] = POOLED
    assert_listed(attachment, pairs, skipped)


def test_ms_resnet18_whose_shortcuts_carry_currents() -> None:
    attachment = attached(ms_resnet.ms_resnet18(**IF), frames())
    currents = ["stem.0", *(f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4))]
    reasons = {name: reason for name, reason in attachment.skipped if "downsample" in name}
    assert reasons == {
        name: f"no pre-synaptic spikes: its input is, in part, the current of {before}"
        for before, name in itertools.pairwise(currents)
    }
    pairs = [(f"layer{stage}.{each}.conv{n}") for stage in (1, 2, 3, 4) for each in (0, 1) for n in (1, 2)]
    assert list(dict(attachment.pairs)) == pairs
    # Its current goes on past the next neuron, to the one behind that block's addition.
    assert [fires for synapse, fires in attachment.pairs if synapse == "layer1.0.conv2"] == [
        "layer1.1.spike1",
        "layer2.0.spike1",
    ]


def test_the_network_for_fashion_mnist_with_voting() -> None:
    model = parametric_lif_net.FashionMNISTNet(channels=4, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0)
    attachment = attached(model, torch.randn(2, 1, 1, 28, 28))
    assert [reason for _, reason in attachment.skipped] == [DATA]
    assert len(attachment.pairs) == 3


def block(attention: Callable[..., nn.Module], dim: int = 8) -> nn.Module:
    return nn.Sequential(neuron.LIFNode(step_mode="m"), attention(dim, 2))


@pytest.mark.parametrize(
    ("attention", "pairs"),
    [
        (SpikingSelfAttention, {"qkv_conv_bn.0": "qkv_lif", "proj_conv_bn.0": "proj_lif"}),
        (QKAttention, {"qk_conv_bn.0": "qk_lif", "proj_conv_bn.0": "proj_lif"}),
    ],
)
def test_attention(attention: Callable[..., nn.Module], pairs: dict[str, str]) -> None:
    attachment = attached(block(attention), torch.randn(2, 1, 8, 5))
    assert_listed(attachment, {f"1.{synapse}": f"1.{fires}" for synapse, fires in pairs.items()}, {})


# What a model of one's own may be made of


def net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(layer.Conv2d(3, 4, 3, padding=1), neuron.LIFNode(), *layers)


@pytest.mark.parametrize(
    "between",
    [
        (layer.MaxPool2d(2),),
        (layer.AvgPool2d(2),),
        (layer.Dropout(0.5),),
        (layer.Dropout2d(0.5),),
        (layer.Dropout(0.2), layer.MaxPool2d(2)),
        (layer.Upsample(scale_factor=2),),
    ],
    ids=str,
)
def test_layers_that_spikes_may_pass(between: tuple[nn.Module, ...]) -> None:
    model = net(*between, layer.Conv2d(4, 4, 3), layer.BatchNorm2d(4), neuron.LIFNode())
    place = 2 + len(between)
    assert_listed(attached(model, frames(8)), {str(place): str(place + 2)}, {"0": DATA})


def test_containers_that_fold_time() -> None:
    folds = layer.SeqToANNContainer(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    stateless = layer.StepModeContainer(False, "m", layer.Conv2d(4, 4, 3), layer.BatchNorm2d(4))
    model = net(folds, neuron.LIFNode(), stateless, neuron.LIFNode())
    assert_listed(attached(model, frames(8)), {"2.0": "3", "4.0": "5"}, {"0": DATA})


def test_containers_that_step() -> None:
    """Inside of them layers and neurons are called once per step."""
    steps = layer.MultiStepContainer(layer.Conv2d(4, 4, 3), layer.BatchNorm2d(4), neuron.LIFNode())
    outside = layer.MultiStepContainer(layer.Conv2d(4, 4, 3))
    stateful = layer.StepModeContainer(True, "m", layer.Conv2d(4, 4, 3), neuron.IFNode())
    model = net(steps, outside, neuron.LIFNode(), stateful)
    assert_listed(attached(model, frames(16)), {"2.0": "2.2", "3.0": "4", "5.0": "5.1"}, {"0": DATA})


def test_layers_with_a_way_of_their_own() -> None:
    model = net(
        layer.WSConv2d(4, 4, 3), neuron.LIFNode(), layer.ConvTranspose2d(4, 4, 3), neuron.LIFNode(), layer.Flatten()
    )
    model.extend([layer.WSLinear(4 * 8 * 8, 3), neuron.LIFNode(), layer.DropConnectLinear(3, 2), neuron.LIFNode()])
    attachment = attached(model, frames(8))
    assert attachment.pairs == [("2", "3"), ("4", "5"), ("7", "8")]
    assert [name for name, _ in attachment.skipped] == ["0", "9"]
    assert "DropConnectLinear did not use it in a way that is known" in dict(attachment.skipped)["9"]


@pytest.mark.parametrize(
    "kind",
    [
        neuron.ILIFNode,
        neuron.TernaryIFNode,
        neuron.TernaryLIFNode,
        lambda: neuron.LIAFNode(torch.sigmoid, False),
    ],
)
def test_neurons_with_graded_spikes_pair(kind: Callable[[], nn.Module]) -> None:
    model = net(layer.Conv2d(4, 4, 3), kind(), layer.Conv2d(4, 4, 3), neuron.LIFNode())
    attachment = attached(model, frames(8))
    assert attachment.pairs == [("2", "3"), ("4", "5")]
    assert [name for name, _ in attachment.skipped] == ["0"]
