"""Spiking recurrent networks for sequences."""

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import steps_one_by_one
from tracegrad.snn.current import linear_current
from tracegrad.snn.models.parts import check_sizes
from tracegrad.snn.models.registry import Neuron, register_model
from tracegrad.snn.neurons import LIF, LIFCell


class RecurrentLayer(nn.Module):
    """Neurons that are driven by their input and by each other's spikes of the step before.

        z(t) = W x(t) + b + V s(t-1),   s(-1) = 0

    W starts as in He et al. (2015), V as a random orthogonal matrix times `RECURRENT_GAIN`.

    Args:
        features: of x.
        hidden: how many neurons there are.
        neuron: called once a step, (current [B, hidden], state) -> (spikes, state).
    """

    def __init__(self, features: int, hidden: int, neuron: nn.Module) -> None:
        super().__init__()
        self.input = nn.Linear(features, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.neuron = neuron
        nn.init.kaiming_normal_(self.input.weight)
        nn.init.zeros_(self.input.bias)
        nn.init.orthogonal_(self.recurrent.weight, RECURRENT_GAIN)

    def forward(self, sequence: Tensor) -> Tensor:
        """Sequences [T, B, features] to spikes [T, B, hidden]."""
        currents = linear_current(sequence, self.input)
        fired, state = torch.zeros_like(currents[0]), None
        spikes: list[Tensor] = []
        for current in currents:
            fired, state = self.neuron(current + linear_current(fired, self.recurrent), state)
            spikes.append(fired)
        return torch.stack(spikes)


RECURRENT_GAIN = 0.5


class Recurrent(nn.Module):
    """A spiking recurrent network: sequences [T, B, features] -> outputs [T, B, classes].

    Recurrent layers of leaky integrate-and-fire neurons, and one fully connected layer that gives an output at every
    step. T is the sequence's own.

    Args:
        num_classes: outputs.
        in_channels: features of a step.
        hidden: neurons of each recurrent layer.
        layers: how many recurrent layers there are.
        neuron: a factory of `LIFCell`, the default, of `LIF`, whose values the cells take over, or of other neurons
            that are called as one: (current [B, hidden], state) -> (spikes, state).

    Raises:
        ValueError: a size below 1, or neurons that are not called step by step.
    """

    def __init__(
        self, num_classes: int, in_channels: int, hidden: int = 128, layers: int = 1, neuron: Neuron | None = None
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, hidden=hidden, layers=layers)
        self.in_channels = in_channels
        self.layers = nn.Sequential(
            *(RecurrentLayer(hidden if layer else in_channels, hidden, _cell(neuron)) for layer in range(layers))
        )
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, sequence: Tensor) -> Tensor:
        """The outputs at every step.

        Raises:
            ValueError: not [T, B, features] with the model's number of features.
        """
        if sequence.dim() != 3 or sequence.shape[2] != self.in_channels:
            raise ValueError(
                f"the input must be sequences [T, B, {self.in_channels}], not of shape {list(sequence.shape)}"
            )
        return self.classifier(self.layers(sequence))


def _cell(make: Neuron | None) -> nn.Module:
    neuron = LIFCell() if make is None else make()
    if isinstance(neuron, LIF):
        return LIFCell.of(neuron)
    if not steps_one_by_one(neuron):
        raise ValueError(
            f"a recurrent network needs neurons that are called step by step, as tracegrad.LIFCell is, not "
            f"{type(neuron).__name__}; tracegrad.register_neuron(..., step=True) says that a class is"
        )
    return neuron


@register_model
def recurrent(
    num_classes: int = 10, in_channels: int = 1, hidden: int = 128, layers: int = 1, neuron: Neuron | None = None
) -> Recurrent:
    """A spiking recurrent network for sequences; the arguments are those of `Recurrent`."""
    return Recurrent(num_classes, in_channels, hidden, layers, neuron)
