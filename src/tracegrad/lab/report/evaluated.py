"""What `tracegrad evaluate` finds out about a trained network, in tables and figures, readable without colour, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tracegrad.lab.files import write
from tracegrad.lab.report.page import to_markdown
from tracegrad.lab.report.style import COLOURS, STYLE, Figures, new_figure, to_png
from tracegrad.lab.report.table import Table, number

Part = Literal["test", "validation"]
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

    def figures(self, images: Tensor) -> Figures:
        """Captions and figures by name: time-steps, firing-rates, confusion, and mistakes if there are any.

        Args:
            images: [mistakes, C, H, W], those of the mistakes.
        """
        trained = f"T = {self.time_steps}"
        with mpl.rc_context(STYLE):
            figures: Figures = {
                "time-steps": ("Accuracy and spikes against the number of time steps", _time_steps(self)),
                "firing-rates": (f"Firing rates of the neuron layers at {trained}", _firing_rates(self)),
                "confusion": (f"Confusion matrix at {trained}", _confusion(self)),
            }
            if self.mistakes:
                figures["mistakes"] = f"The most confident mistakes at {trained}", _mistakes(self, images)
        return figures


def curves(title: str, accuracy: Mapping[int, float], spikes: Mapping[int, float]) -> tuple[Figure, Axes, Axes]:
    """Accuracy (0 to 1) and spikes per image by T, side by side: the figure, the left and the right panel."""
    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    style = {"marker": "o", "color": COLOURS[0]}
    left.plot(list(accuracy), [100 * value for value in accuracy.values()], **style)
    right.plot(list(spikes), [value / 1000 for value in spikes.values()], **style)
    left.set(xlabel="Time steps T", ylabel="Accuracy (%)")
    right.set(xlabel="Time steps T", ylabel="Spikes per image (thousands)", ylim=(0, None))
    figure.suptitle(title)
    return figure, left, right


def write_page(path: Path, facts: Any, tables: Sequence[Table], figures: Figures) -> None:
    """Writes what was measured, a dataclass, as PATH.json, tables and figures as PATH.md, each figure as NAME.png.

    Raises:
        OSError: as `tracegrad.lab.files.write`.
    """
    write(path.with_suffix(".json"), json.dumps(asdict(facts), indent=2) + "\n")
    write(path.with_suffix(".md"), to_markdown([*tables, figures], "![{0}]({1}.png)\n\n{0}"))
    for name, (_, figure) in figures.items():
        with mpl.rc_context(STYLE):
            write(path.with_name(f"{name}.png"), to_png(figure))


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
