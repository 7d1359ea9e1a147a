"""Spiking residual networks (He et al. 2016) as Park et al. (2023) and Zheng et al. (2021) train them."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from tracegrad.snn.current import currents_of
from tracegrad.snn.fire_on import fire_on
from tracegrad.snn.models.registry import Neuron, register_model
from tracegrad.snn.neurons import LIF
from tracegrad.snn.norms import NORMS, RESIDUAL_GAIN

_Norm = Callable[[int, float, float], nn.Module]
"""(channels, scale, threshold) -> a norm."""


class _BasicBlock(nn.Module):
    """conv-norm-neuron-conv-norm, plus the shortcut, then a neuron; spikes [T, B, C, H, W] in and out.

    The shortcut is the block's input itself, or with `project` a 1x1 convolution and a norm.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, project: bool, norm: _Norm, neuron: Neuron
    ) -> None:
        super().__init__()
        self.neuron1 = neuron()
        self.neuron2 = neuron()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = norm(channels, 1.0, _threshold(self.neuron1))
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels, RESIDUAL_GAIN, _threshold(self.neuron2))
        self.shortcut = None
        if project:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut_norm = norm(channels, RESIDUAL_GAIN, _threshold(self.neuron2))

    def forward(self, spikes: Tensor) -> Tensor:
        if self.shortcut is None:
            (current,), shortcut = currents_of(spikes, self.conv1), (spikes, None)
        else:
            current, skipped = currents_of(spikes, self.conv1, self.shortcut)
            shortcut = (skipped, self.shortcut_norm)
        inner = fire_on(self.neuron1, (current, self.norm1))
        (current,) = currents_of(inner, self.conv2)
        return fire_on(self.neuron2, (current, self.norm2), shortcut)


MOST_BLOCKS = 1000


class ResNet(nn.Module):
    """A spiking residual network: images [B, C, H, W] or frames [T, B, C, H, W] -> outputs [T, B, classes].

    A 3x3 stem, then stages of basic blocks with width, 2 * width, 4 * width, ... channels, each but the first
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

    Raises:
        ValueError: an unknown norm, a size below 1, or more than 1,000 blocks.
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
    ) -> None:
        super().__init__()
        sizes = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "time_steps": time_steps}
        sizes |= {} if hidden is None else {"hidden": hidden}
        for name, size in (*sizes.items(), *(("every entry of blocks", size) for size in blocks)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if sum(blocks) > MOST_BLOCKS:
            raise ValueError(f"blocks must be at most {MOST_BLOCKS:,} together, not {sum(blocks):,}")
        make_norm, make_neuron = partial(NORMS[norm], time_steps=time_steps), neuron or LIF
        self.in_channels = in_channels
        self.time_steps = time_steps
        self.neuron = make_neuron()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = make_norm(width, 1.0, _threshold(self.neuron))
        self.stages = nn.ModuleList()
        channels = width
        for stage, count in enumerate(blocks):
            before, channels = channels, width * 2**stage
            first = _BasicBlock(before, channels, 2 if stage else 1, True, make_norm, make_neuron)
            others = [_BasicBlock(channels, channels, 1, False, make_norm, make_neuron) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *others))
        self.hidden = None
        if hidden is not None:
            self.hidden = nn.Linear(channels, hidden)
            self.hidden_neuron = make_neuron()
        self.classifier = nn.Linear(hidden or channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step.

        Raises:
            ValueError: neither [B, C, H, W] nor [T, B, C, H, W] with the model's number of channels.
        """
        if images.dim() not in (4, 5) or images.shape[-3] != self.in_channels:
            raise ValueError(
                f"the input must be images [B, {self.in_channels}, H, W] or frames [T, B, {self.in_channels}, H, W], "
                f"not of shape {list(images.shape)}"
            )
        # The current of a still image is the same at every step: computed once.
        frames = images if images.dim() == 5 else images[None]
        time_steps = len(frames) if images.dim() == 5 else self.time_steps
        current = self.conv(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        spikes = fire_on(self.neuron, (current, self.norm), time_steps=time_steps)
        for stage in self.stages:
            spikes = stage(spikes)
        features = spikes.mean((3, 4))
        if self.hidden is not None:
            features = self.hidden_neuron(self.hidden(features))
        return self.classifier(features)


def _threshold(neuron: nn.Module) -> float:
    """The threshold that a norm prepares currents for; 1 where a neuron has none of its own."""
    threshold = getattr(neuron, "threshold", 1.0)
    return float(threshold.mean() if isinstance(threshold, Tensor) else threshold)


@register_model
def resnet(
    num_classes: int = 10,
    in_channels: int = 3,
    blocks: Sequence[int] = (3, 3, 3),
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> ResNet:
    """A spiking residual network of any depth; the arguments are those of `ResNet`."""
    return ResNet(blocks, num_classes, in_channels, width, time_steps, norm, neuron)


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
