"""The networks of the contract: one step of each; in plain PyTorch they are those of tests/core/networks.py.

`step(x, fire)` computes on [B, ...], or on all steps at once where the layers and `fire` do.
"""

from collections.abc import Callable
from typing import Any

import networks
import torch
from torch import Tensor, nn

from contract.library import Fire

Factory = Callable[[], nn.Module]


def _conv(layers: Any, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return layers.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Convolutional(nn.Module):
    """Stem on real numbers, pool, one hidden convolution, average over space, classifier."""

    frame, spiking_input = (2, 6, 6), False
    plain = staticmethod(lambda: networks.Stack(nn.Identity, nn.MaxPool2d(2)))

    def __init__(self, layers: Any, neuron: Factory) -> None:
        super().__init__()
        self.stem, self.norm0, self.neuron0 = _conv(layers, 2, 4), layers.BatchNorm2d(4), neuron()
        self.pool = layers.MaxPool2d(2)
        self.hidden, self.norm1, self.neuron1 = _conv(layers, 4, 5), layers.BatchNorm2d(5), neuron()
        self.head = nn.Linear(5, 3)

    def step(self, x: Tensor, fire: Fire) -> Tensor:
        s = self.pool(fire(self.neuron0, self.norm0(self.stem(x))))
        return self.head(fire(self.neuron1, self.norm1(self.hidden(s))).mean((-2, -1)))


class Residual(nn.Module):
    """On spikes: a block with a strided 1x1 shortcut, then a block whose shortcut is its input spikes."""

    frame, spiking_input = (3, 6, 6), True
    plain = staticmethod(lambda: networks.Residual(nn.Identity))

    def __init__(self, layers: Any, neuron: Factory) -> None:
        super().__init__()
        self.conv1, self.norm1, self.neuron1 = _conv(layers, 3, 4, stride=2), layers.BatchNorm2d(4), neuron()
        self.conv2, self.norm2, self.neuron2 = _conv(layers, 4, 4), layers.BatchNorm2d(4), neuron()
        self.shortcut, self.norm = _conv(layers, 3, 4, kernel=1, stride=2), layers.BatchNorm2d(4)
        self.conv3, self.norm3, self.neuron3 = _conv(layers, 4, 4), layers.BatchNorm2d(4), neuron()
        self.conv4, self.norm4, self.neuron4 = _conv(layers, 4, 4), layers.BatchNorm2d(4), neuron()

    def step(self, x: Tensor, fire: Fire) -> Tensor:
        s = fire(self.neuron1, self.norm1(self.conv1(x)))
        block = fire(self.neuron2, self.norm2(self.conv2(s)) + self.norm(self.shortcut(x)))
        s = fire(self.neuron3, self.norm3(self.conv3(block)))
        return fire(self.neuron4, self.norm4(self.conv4(s)) + block)


class Crowd(nn.Module):
    """A synapse on spikes, small enough for a large batch; one of its two neurons fires more often."""

    frame, spiking_input = (1,), True

    def __init__(self, _: Any, neuron: Factory) -> None:
        super().__init__()
        self.synapse, self.neuron = nn.Linear(1, 2), neuron()
        self.synapse.weight.data, self.synapse.bias.data = torch.tensor([[3.0], [0.4]]), torch.tensor([3.0, 0.0])

    def step(self, x: Tensor, fire: Fire) -> Tensor:
        return fire(self.neuron, self.synapse(x))


NETWORKS = {"convolutional": Convolutional, "residual": Residual, "crowd": Crowd}


class BehindStem(nn.Module):
    """What follows the stem of a classifier of digits."""

    def __init__(self, layers: Any, neuron: Factory) -> None:
        super().__init__()
        self.neuron0 = neuron()
        self.hidden, self.norm1, self.neuron1 = layers.Conv2d(8, 16, 3, stride=2), layers.BatchNorm2d(16), neuron()
        self.head = nn.Linear(16 * 9, 10)

    def step(self, current: Tensor, fire: Fire) -> Tensor:
        s = fire(self.neuron0, current)
        return self.head(fire(self.neuron1, self.norm1(self.hidden(s))).flatten(-3))
