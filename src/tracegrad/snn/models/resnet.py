"""Spiking residual networks (He et al. 2016) as Park et al. (2023) and Zheng et al. (2021) train them, SEW and MS."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from tracegrad.snn.current import currents_of
from tracegrad.snn.fire_on import add_currents, fire_on
from tracegrad.snn.models.parts import check_sizes, frames_of, initialise, threshold_of
from tracegrad.snn.models.registry import Neuron, register_model
from tracegrad.snn.models.residual_blocks import BLOCKS
from tracegrad.snn.neurons import LIF
from tracegrad.snn.norms import NORMS

MOST_BLOCKS = 1000


class ResNet(nn.Module):
    """A spiking residual network: images [B, C, H, W] or frames [T, B, C, H, W] -> outputs [T, B, classes].

    A 3x3 stem, then stages of residual blocks with width, 2 * width, 4 * width, ... channels, each but the first
    halving the image; in the first block of every stage the shortcut is a 1x1 convolution and a norm, elsewhere the
    block's input spikes. Global average pooling and one fully connected layer give an output at every step. An image
    is the input current, the same at each of the T steps.

    Args:
        blocks: how many blocks each stage has.
        num_classes: outputs.
        in_channels: of the images.
        width: channels of the stem and the first stage.
        time_steps: T for images; frames have their own.
        norm: a registered norm: "tdbn", "tebn" or "time_mean".
        neuron: a factory of neurons, `LIF` by default. `torch.nn.ReLU` with time_steps=1 makes the ReLU network of the
            same topology, norms and parameters, whose outputs are [1, B, classes].
        hidden: features of one more fully connected layer, with neurons, before the last one; None for no such layer.
        block: "basic", neurons after the addition; "sew", spikes are added to spikes (Fang et al. 2021); or "ms",
            currents are added to currents (Hu et al. 2024), and the stem's neurons come after the last stage.

    Raises:
        ValueError: an unknown norm or block, a size below 1, or more than 1,000 blocks.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        time_steps: int = 4,
        norm: str = "tdbn",
        neuron: Neuron | None = None,
        hidden: int | None = None,
        block: str = "basic",
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, width=width, time_steps=time_steps)
        check_sizes(**{"every entry of blocks": min(blocks, default=1), "hidden": 1 if hidden is None else hidden})
        if sum(blocks) > MOST_BLOCKS:
            raise ValueError(f"blocks must be at most {MOST_BLOCKS:,} together, not {sum(blocks):,}")
        make_norm, make_neuron = partial(NORMS[norm], time_steps=time_steps), neuron or LIF
        make_block = BLOCKS[block]
        self.passes_currents = make_block.passes_currents
        self.in_channels = in_channels
        self.time_steps = time_steps
        self.neuron = make_neuron()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = make_norm(width, 1.0, threshold_of(self.neuron))
        self.stages = nn.ModuleList()
        channels = width
        for stage, count in enumerate(blocks):
            before, channels = channels, width * 2**stage
            first = make_block(before, channels, 2 if stage else 1, True, make_norm, make_neuron)
            others = [make_block(channels, channels, 1, False, make_norm, make_neuron) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *others))
        self.hidden = None
        if hidden is not None:
            self.hidden = nn.Linear(channels, hidden)
            self.hidden_neuron = make_neuron()
        self.classifier = nn.Linear(hidden or channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step.

        Raises:
            ValueError: neither [B, C, H, W] nor [T, B, C, H, W] with the model's number of channels.
        """
        frames, time_steps = frames_of(images, self.in_channels, self.time_steps)
        (current,) = currents_of(frames, self.conv)
        stem = current, self.norm
        if self.passes_currents:
            x = add_currents(stem, time_steps=time_steps)
        else:
            x = fire_on(self.neuron, stem, time_steps=time_steps)
        for stage in self.stages:
            x = stage(x)
        spikes = fire_on(self.neuron, (x, None)) if self.passes_currents else x
        features = spikes.mean((3, 4))
        if self.hidden is not None:
            features = self.hidden_neuron(self.hidden(features))
        return self.classifier(features)


@register_model
def resnet(
    num_classes: int = 10,
    in_channels: int = 3,
    blocks: Sequence[int] = (3, 3, 3),
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
    block: str = "basic",
) -> ResNet:
    """A spiking residual network of any depth; the arguments are those of `ResNet`."""
    return ResNet(blocks, num_classes, in_channels, width, time_steps, norm, neuron, block=block)


@register_model
def resnet19(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 128,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """ResNet19 of Zheng et al. (2021): stages of 3, 3, 2 blocks, and a hidden layer of 2 * width neurons.

    The arguments are those of `ResNet`.
    """
    return ResNet((3, 3, 2), num_classes, in_channels, width, time_steps, norm, neuron, hidden=2 * width)


@register_model
def resnet20(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """ResNet20 of Park et al. (2023): stages of 3, 3, 3 blocks; the arguments are those of `ResNet`."""
    return ResNet((3, 3, 3), num_classes, in_channels, width, time_steps, norm, neuron)


@register_model
def resnet32(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """ResNet32 of Park et al. (2023): stages of 5, 5, 5 blocks; the arguments are those of `ResNet`."""
    return ResNet((5, 5, 5), num_classes, in_channels, width, time_steps, norm, neuron)


@register_model
def sew_resnet20(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """ResNet20 with spike-element-wise blocks (Fang et al. 2021); the arguments are those of `ResNet`."""
    return ResNet((3, 3, 3), num_classes, in_channels, width, time_steps, norm, neuron, block="sew")


@register_model
def ms_resnet20(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """ResNet20 with membrane-shortcut blocks (Hu et al. 2024); the arguments are those of `ResNet`."""
    return ResNet((3, 3, 3), num_classes, in_channels, width, time_steps, norm, neuron, block="ms")
