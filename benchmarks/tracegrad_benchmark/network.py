"""The network of `tracegrad.snn.models.resnet` made of the layers of any library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tracegrad.snn.norms import RESIDUAL_GAIN
from tracegrad_benchmark.workload import THRESHOLD, Workload


@dataclass(frozen=True)
class Layers:
    """What a library builds networks of.

    Args:
        neuron: () -> a layer that fires.
        convolution: as `nn.Conv2d`.
        norm: as `nn.BatchNorm2d`.
    """

    neuron: Callable[[], nn.Module]
    convolution: Callable[..., Any] = nn.Conv2d
    norm: Callable[[int], Any] = nn.BatchNorm2d


class Network(nn.Module):
    """A residual network of some library's layers; whether they take one step or all of them is up to the layers.

    Args:
        workload: its sizes.
        layers: of the library.
    """

    def __init__(self, workload: Workload, layers: Layers) -> None:
        super().__init__()
        self.stem = _convolution(layers, workload.channels, workload.width, 3, 1, THRESHOLD)
        self.neuron = layers.neuron()
        stages: list[nn.Module] = []
        before = workload.width
        for stage, count in enumerate(workload.blocks):
            channels = workload.width * 2**stage
            for block in range(count):
                stages.append(_Block(layers, before, channels, 2 if stage and not block else 1, not block))
                before = channels
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(before, workload.classes)

    def body(self, current: Tensor) -> Tensor:
        """What follows the stem: its current [..., C, H, W] to outputs [..., classes]."""
        spikes = self.blocks(self.neuron(current))
        return self.classifier(spikes.mean((-2, -1)))


class _Block(nn.Module):
    def __init__(self, layers: Layers, before: int, channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.first = _convolution(layers, before, channels, 3, stride, THRESHOLD)
        self.neuron1 = layers.neuron()
        self.second = _convolution(layers, channels, channels, 3, 1, THRESHOLD * RESIDUAL_GAIN)
        self.shortcut = nn.Identity()
        if project:
            self.shortcut = _convolution(layers, before, channels, 1, stride, THRESHOLD * RESIDUAL_GAIN)
        self.neuron2 = layers.neuron()

    def forward(self, spikes: Tensor) -> Tensor:
        return self.neuron2(self.second(self.neuron1(self.first(spikes))) + self.shortcut(spikes))


def _convolution(layers: Layers, before: int, channels: int, size: int, stride: int, gamma: float) -> nn.Sequential:
    convolution = layers.convolution(before, channels, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = layers.norm(channels)
    nn.init.constant_(norm.weight, gamma)
    return nn.Sequential(convolution, norm)
