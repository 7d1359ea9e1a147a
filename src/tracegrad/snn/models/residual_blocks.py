"""Residual blocks of spiking networks. They have the same weights, and differ in where neurons and shortcut are."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from tracegrad.core.registry import Registry
from tracegrad.snn.current import currents_of
from tracegrad.snn.fire_on import add_currents, fire_on
from tracegrad.snn.models.parts import threshold_of
from tracegrad.snn.models.registry import Neuron
from tracegrad.snn.norms import RESIDUAL_GAIN

MakeNorm = Callable[[int, float, float], nn.Module]
"""(channels, scale, threshold) -> a norm."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms and neurons, and a shortcut: the block's input itself, or a projection of it.

    Args:
        in_channels: of the input, [T, B, C, H, W].
        channels: of the output.
        stride: of the first convolution, and of the projection.
        project: whether the shortcut is a 1x1 convolution and a norm.
        norm: makes the norms.
        neuron: makes the neurons.
    """

    gain: ClassVar[float] = RESIDUAL_GAIN
    """The scale of the norms that end the two paths."""
    passes_currents: ClassVar[bool] = False
    """Whether blocks pass currents to each other, and not spikes."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, project: bool, norm: MakeNorm, neuron: Neuron
    ) -> None:
        super().__init__()
        self.neuron1 = neuron()
        self.neuron2 = neuron()
        threshold = threshold_of(self.neuron2)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = norm(channels, 1.0, threshold)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels, self.gain, threshold)
        self.shortcut = None
        if project:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut_norm = norm(channels, self.gain, threshold)

    def currents(self, spikes: Tensor) -> tuple[Tensor, tuple[Tensor, nn.Module] | None]:
        """The first convolution's current, and the projection's, if there is one, with its norm."""
        if self.shortcut is None:
            return currents_of(spikes, self.conv1)[0], None
        current, projected = currents_of(spikes, self.conv1, self.shortcut)
        return current, (projected, self.shortcut_norm)


class BasicBlock(ResidualBlock):
    """conv-norm-neuron-conv-norm, plus the shortcut, then a neuron (Zheng et al. 2021); spikes in and out."""

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes [T, B, C, H, W] to spikes."""
        current, projected = self.currents(spikes)
        inner = fire_on(self.neuron1, (current, self.norm1))
        (current,) = currents_of(inner, self.conv2)
        return fire_on(self.neuron2, (current, self.norm2), projected or (spikes, None))


class SEWBlock(ResidualBlock):
    """Spike-element-wise residual block (Fang et al. 2021) with addition: conv-norm-neuron twice, plus the shortcut.

    Spikes are added to spikes, so that the output is whole numbers: the projection has neurons of its own, and of the
    identity blocks of a stage each can add 1.
    """

    gain = 1.0

    def __init__(
        self, in_channels: int, channels: int, stride: int, project: bool, norm: MakeNorm, neuron: Neuron
    ) -> None:
        super().__init__(in_channels, channels, stride, project, norm, neuron)
        if project:
            self.shortcut_neuron = neuron()

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes, or sums of spikes, [T, B, C, H, W] to sums of spikes."""
        current, projected = self.currents(spikes)
        inner = fire_on(self.neuron1, (current, self.norm1))
        (current,) = currents_of(inner, self.conv2)
        outer = fire_on(self.neuron2, (current, self.norm2))
        return outer + (spikes if projected is None else fire_on(self.shortcut_neuron, projected))


class MSBlock(ResidualBlock):
    """Membrane-shortcut residual block (Hu et al. 2024): neuron-conv-norm twice, plus the shortcut; of currents.

    The shortcut carries currents, and so does the projection's input: it is no synapse of spikes.
    """

    passes_currents = True

    def forward(self, currents: Tensor) -> Tensor:
        """Currents [T, B, C, H, W] to currents."""
        spikes = fire_on(self.neuron1, (currents, None))
        (current,) = currents_of(spikes, self.conv1)
        spikes = fire_on(self.neuron2, (current, self.norm1))
        (current,) = currents_of(spikes, self.conv2)
        shortcut = (currents, None)
        if self.shortcut is not None:
            shortcut = (currents_of(currents, self.shortcut)[0], self.shortcut_norm)
        return add_currents((current, self.norm2), shortcut)


BLOCKS: Registry[type[ResidualBlock]] = Registry("block")
BLOCKS.register("basic", BasicBlock)
BLOCKS.register("sew", SEWBlock)
BLOCKS.register("ms", MSBlock)
