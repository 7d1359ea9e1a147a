"""Spiking VGG networks (Simonyan & Zisserman 2015), with norms."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from tracegrad.snn.current import currents_of
from tracegrad.snn.fire_on import fire_on
from tracegrad.snn.models.parts import check_sizes, frames_of, initialise, threshold_of
from tracegrad.snn.models.registry import Neuron, register_model
from tracegrad.snn.neurons import LIF
from tracegrad.snn.norms import NORMS, Norm


class _ConvLayer(nn.Module):
    """A 3x3 convolution, a norm and neurons."""

    def __init__(self, in_channels: int, channels: int, time_steps: int, norm: Norm, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = norm(channels=channels, scale=1.0, threshold=threshold_of(self.neuron), time_steps=time_steps)

    def forward(self, x: Tensor, time_steps: int | None = None) -> Tensor:
        """Frames or spikes [T, B, C, H, W] to spikes; [1, B, C, H, W] is the same input at each of `time_steps`."""
        (current,) = currents_of(x, self.conv)
        return fire_on(self.neuron, (current, self.norm), time_steps=time_steps)


class VGG(nn.Module):
    """A spiking VGG network: images [B, C, H, W] or frames [T, B, C, H, W] -> outputs [T, B, classes].

    Stages of layers conv-norm-neuron, with 2x2 max pools between them: the maximum of spikes is a spike again. Global
    average pooling in place of the last max pool, and one fully connected layer, give an output at every step. An image
    is the input current, the same at each of the T steps.

    Args:
        stages: how many times `width` channels each layer has, stage by stage.
        num_classes: outputs.
        in_channels: of the images.
        width: channels of the first layer.
        time_steps: T for images; frames have their own.
        norm: a registered norm: "tdbn", "tebn" or "time_mean".
        neuron: a factory of neurons, `LIF` by default. `torch.nn.ReLU` with time_steps=1 makes the ReLU network of the
            same topology, norms and parameters, whose outputs are [1, B, classes].

    Raises:
        ValueError: an unknown norm, or a size below 1.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        time_steps: int = 4,
        norm: str = "tdbn",
        neuron: Neuron | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, width=width, time_steps=time_steps)
        make = partial(_ConvLayer, time_steps=time_steps, norm=NORMS[norm], neuron=neuron or LIF)
        self.in_channels = in_channels
        self.time_steps = time_steps
        self.stages = nn.ModuleList()
        channels = in_channels
        for stage in stages:
            layers: list[nn.Module] = []
            for multiple in stage:
                before, channels = channels, width * multiple
                layers.append(make(before, channels))
            self.stages.append(nn.ModuleList(layers))
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in stages[1:])
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step.

        Raises:
            ValueError: neither [B, C, H, W] nor [T, B, C, H, W] with the model's number of channels, or images that are
                too small for the pools.
        """
        x, time_steps = frames_of(images, self.in_channels, self.time_steps)
        least = 2 ** len(self.pools)
        if min(images.shape[-2:]) < least:
            raise ValueError(
                f"images must be at least {least} x {least}, not {list(images.shape[-2:])}: each pool halves"
            )
        for stage, layers in enumerate(self.stages):
            if stage:
                x = self.pools[stage - 1](x.flatten(0, 1)).unflatten(0, x.shape[:2])
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues] - a ModuleList in a ModuleList
                x = layer(x, time_steps)
        return self.classifier(x.mean((3, 4)))


VGG11 = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Configuration A of Simonyan & Zisserman, as multiples of its 64 channels."""


@register_model
def vgg11(
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 64,
    time_steps: int = 4,
    norm: str = "tdbn",
    neuron: Neuron | None = None,
) -> VGG:
    """VGG11 for images of 16 x 16 and more, with one fully connected layer; the arguments are those of `VGG`."""
    return VGG(VGG11, num_classes, in_channels, width, time_steps, norm, neuron)
