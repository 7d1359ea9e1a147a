"""Networks that only SpikingJelly has."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from contract.cases import Case
from contract.library import Fire
from contract.networks import Factory
from networks import conv
from spikingjelly.activation_based.model.sew_resnet import sew_function
from torch import Tensor, nn

from reference import Tape


class ElementWise(nn.Module):
    """A spike-element-wise block (Fang et al. 2021), and one layer more."""

    frame, spiking_input = (3, 6, 6), True

    def __init__(self, layers: Any, neuron: Factory, join: str) -> None:
        super().__init__()
        self.join = join
        self.conv1, self.neuron1 = layers.Conv2d(3, 3, 3, padding=1, bias=False), neuron()
        self.conv2, self.neuron2 = layers.Conv2d(3, 3, 3, padding=1, bias=False), neuron()
        self.conv3, self.neuron3 = layers.Conv2d(3, 4, 3, padding=1, bias=False), neuron()

    def plain(self) -> nn.Module:
        return PlainElementWise(self.join)

    def step(self, x: Tensor, fire: Fire) -> Tensor:
        s = fire(self.neuron2, self.conv2(fire(self.neuron1, self.conv1(x))))
        return fire(self.neuron3, self.conv3(sew_function(x, s, self.join)))


class PlainElementWise(nn.Module):
    """The same block in plain PyTorch."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.join = {"ADD": lambda x, s: x + s, "AND": lambda x, s: x * s, "IAND": lambda x, s: x * (1 - s)}[join]
        self.conv1, self.neuron1 = conv(3, 3), nn.Identity()
        self.conv2, self.neuron2 = conv(3, 3), nn.Identity()
        self.conv3, self.neuron3 = conv(3, 4), nn.Identity()

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, tape.synapse(self.conv1, x), [self.conv1])
        s = tape.neuron(self.neuron2, tape.synapse(self.conv2, s), [self.conv2])
        return tape.neuron(self.neuron3, tape.synapse(self.conv3, self.join(x, s)), [self.conv3])


@dataclass(frozen=True)
class ElementWiseCase(Case):
    """A case whose network is named by how its block joins spikes: "ADD", "AND" or "IAND"."""

    @property
    def kind(self) -> Any:
        bound = partial(ElementWise, join=self.network)
        bound.frame, bound.spiking_input = ElementWise.frame, ElementWise.spiking_input
        return bound
