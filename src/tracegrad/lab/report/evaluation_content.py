"""What `tracegrad evaluate` finds out about a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tracegrad.lab.report.table import Table, number

Part = Literal["test", "validation"]


@dataclass(frozen=True)
class Layer:
    """Activity of a neuron layer at the trained number of time steps.

    Args:
        name: of the module.
        neurons: how many there are.
        spikes_per_image: over all time steps, a mean over the images.
        firing_rate: spikes per neuron and time step.
    """

    name: str
    neurons: int
    spikes_per_image: float
    firing_rate: float


@dataclass(frozen=True)
class Mistake:
    """An image whose class is wrong.

    Args:
        image: its place in the part of the data, from 0.
        true: its class.
        predicted: the network's.
        confidence: softmax probability of the predicted class, 0 to 1.
    """

    image: int
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class RunEvaluation:
    """Everything about a trained network on a part of its data.

    Args:
        run: what to call it.
        part: of the data.
        images: how many.
        time_steps: of the training.
        accuracy: by the number of time steps T, 0 to 1.
        spikes_per_image: by T.
        layers: from the input to the output.
        classes: their names.
        confusion: images of each true class (row) by predicted class (column).
        mistakes: the most confident ones, the most confident first.
    """

    run: str
    part: Part
    images: int
    time_steps: int
    accuracy: dict[int, float]
    spikes_per_image: dict[int, float]
    layers: list[Layer]
    classes: list[str]
    confusion: list[list[int]]
    mistakes: list[Mistake]

    def tables(self) -> tuple[Table, Table]:
        """Accuracy and spikes at every T, and the layers."""
        steps = Table(
            f"{self.run}: {self.images} {self.part} images, trained with T = {self.time_steps}",
            ("Time steps T", "Accuracy (%)", "Spikes per image (K)"),
            tuple(
                (self._name(steps), number(100 * accuracy), number(self.spikes_per_image[steps] / 1000))
                for steps, accuracy in self.accuracy.items()
            ),
        )
        layers = Table(
            f"Neuron layers at T = {self.time_steps}",
            ("Layer", "Neurons", "Spikes per image", "Firing rate (spikes per neuron and step)"),
            tuple(
                (layer.name, str(layer.neurons), number(layer.spikes_per_image, 1), number(layer.firing_rate, 3))
                for layer in self.layers
            ),
        )
        return steps, layers

    def _name(self, steps: int) -> str:
        return f"{steps} (trained)" if steps == self.time_steps else str(steps)
