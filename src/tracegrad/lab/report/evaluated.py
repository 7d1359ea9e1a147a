"""What `tracegrad evaluate` finds out about a trained network, in tables and figures, readable without colour, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tracegrad.lab.report.style import COLOURS, STYLE, new_figure
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.time_steps import Part, curves

NAMED = 20  # classes up to this number are named, and their cells counted, in the confusion matrix


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
        names = {steps: f"{steps} (trained)" if steps == self.time_steps else str(steps) for steps in self.accuracy}
        steps = Table(
            f"{self.run}: {self.images} {self.part} images, trained with T = {self.time_steps}",
            ("Time steps T", "Accuracy (%)", "Spikes per image (K)"),
            tuple(
                (name, number(100 * self.accuracy[steps]), number(self.spikes_per_image[steps] / 1000))
                for steps, name in names.items()
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

    def figures(self, images: Tensor) -> dict[str, tuple[str, Figure]]:
        """Captions and figures by name: time-steps, firing-rates, confusion, and mistakes if there are any.

        Args:
            images: [mistakes, C, H, W], those of the mistakes.
        """
        trained = f"T = {self.time_steps}"
        with mpl.rc_context(STYLE):
            figures = {
                "time-steps": ("Accuracy and spikes against the number of time steps", _time_steps(self)),
                "firing-rates": (f"Firing rates of the neuron layers at {trained}", _firing_rates(self)),
                "confusion": (f"Confusion matrix at {trained}", _confusion(self)),
            }
            if self.mistakes:
                figures["mistakes"] = f"The most confident mistakes at {trained}", _mistakes(self, images)
        return figures


def _time_steps(evaluation: RunEvaluation) -> Figure:
    figure, left, right = curves(evaluation.run, evaluation.accuracy, evaluation.spikes_per_image)
    left.set(ylabel=f"{evaluation.part.capitalize()} accuracy (%)")
    for axes in (left, right):
        trained, at_the_foot = (evaluation.time_steps, 0.02), ("data", "axes fraction")
        axes.axvline(trained[0], color="0.6", linestyle="--", linewidth=1)
        axes.annotate("trained", trained, xycoords=at_the_foot, xytext=(4, 0), textcoords="offset points")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _firing_rates(evaluation: RunEvaluation) -> Figure:
    layers = evaluation.layers
    figure = new_figure(7, 1.3 + 0.3 * len(layers))
    axes = figure.add_subplot()
    names, rates = [layer.name for layer in layers], [layer.firing_rate for layer in layers]
    axes.bar_label(axes.barh(names, rates, color=COLOURS[0], height=0.7), fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.15)
    axes.set(xlabel="Firing rate (spikes per neuron and time step)", ylabel="Neuron layer, input first")
    axes.set_title(evaluation.run)
    return figure


def _confusion(evaluation: RunEvaluation) -> Figure:
    counts = torch.tensor(evaluation.confusion)
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    classes = len(counts)
    size = 3.5 + 0.35 * min(classes, NAMED)
    figure = new_figure(size + 1, size)
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class (%)")
    axes.grid(visible=False)
    axes.set(xlabel="Predicted class", ylabel="True class", title=evaluation.run)
    if classes <= NAMED:
        upright: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        names_are_short = max(map(len, evaluation.classes)) <= 2
        axes.set_xticks(range(classes), evaluation.classes, **({} if names_are_short else upright))
        axes.set_yticks(range(classes), evaluation.classes)
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 55 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=9)
    return figure


def _mistakes(evaluation: RunEvaluation, images: Tensor) -> Figure:
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(max(1.55 * columns, 5), 1.9 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    pixels = images.float().permute(0, 2, 3, 1).numpy()
    pixels = (pixels - pixels.min()) / max(pixels.max() - pixels.min(), 1e-6)
    for panel in panels:
        panel.axis("off")
    for panel, picture, mistake in zip(panels, pixels, evaluation.mistakes, strict=False):
        panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
        title = f"{mistake.predicted}, {mistake.confidence:.0%}\n(is {mistake.true})"
        panel.set_title(title, fontsize=9, linespacing=1.1)
    figure.suptitle(f"{evaluation.run}: predicted with confidence (and what it is)")
    return figure
