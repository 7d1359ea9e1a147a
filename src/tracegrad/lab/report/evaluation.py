"""Evaluates a complete run: at every number of time steps, layer by layer, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.figures import accuracy_and_spikes, firing_rates_of_layers
from tracegrad.lab.report.page import write_page
from tracegrad.lab.report.style import STYLE, Figures, new_figure
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.runs.isolation import isolated, quiet

Part = Literal["test", "validation"]
BEYOND = 2  # by default, up to twice the number of time steps of the training
FEW = 8  # time steps of which every number is measured
SHOWN = 24  # mistakes
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
        rows = [
            (
                f"{steps} (trained)" if steps == self.time_steps else str(steps),
                number(100 * accuracy),
                number(self.spikes_per_image[steps] / 1000),
            )
            for steps, accuracy in self.accuracy.items()
        ]
        of_layers = [
            (each.name, str(each.neurons), number(each.spikes_per_image, 1), number(each.firing_rate, 3))
            for each in self.layers
        ]
        title = f"{self.run}: {self.images} {self.part} images, trained with T = {self.time_steps}"
        columns = ("Layer", "Neurons", "Spikes per image", "Firing rate (spikes per neuron and step)")
        return (
            Table(title, ("Time steps T", "Accuracy (%)", "Spikes per image (K)"), tuple(rows)),
            Table(f"Neuron layers at T = {self.time_steps}", columns, tuple(of_layers)),
        )

    @mpl.rc_context(STYLE)
    def figures(self, images: Tensor) -> Figures:
        """Captions and figures by name: time-steps, firing-rates and mistakes if there are any, and confusion.

        Args:
            images: [mistakes, C, H, W], those of the mistakes.
        """
        trained = f"T = {self.time_steps}"
        rates = {self.run: {each.name: [each.firing_rate] for each in self.layers}}
        figures = {"time-steps": ("Accuracy and spikes against the number of time steps", self._time_steps())}
        if self.layers:
            of_rates = firing_rates_of_layers(rates, rates)
            figures["firing-rates"] = f"Firing rates of the neuron layers at {trained}", of_rates
        figures["confusion"] = f"Confusion matrix at {trained}", self._confusion()
        if self.mistakes:
            figures["mistakes"] = f"The most confident mistakes at {trained}", self._mistakes(images)
        return figures

    def _time_steps(self) -> Figure:
        figure = accuracy_and_spikes(self.run, self.accuracy, self.spikes_per_image)
        figure.axes[0].set(ylabel=f"{self.part.capitalize()} accuracy (%)")
        for axes in figure.axes:
            place, at_the_foot = (self.time_steps, 0.02), ("data", "axes fraction")
            axes.axvline(self.time_steps, color="0.6", linestyle="--", linewidth=1)
            axes.annotate("trained", place, xycoords=at_the_foot, xytext=(4, 0), textcoords="offset points")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    def _confusion(self) -> Figure:
        """Colours are shares of the true class, numbers are images."""
        counts, classes = np.array(self.confusion), len(self.classes)
        shares = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
        size = 3.5 + 0.35 * min(classes, NAMED)
        figure = new_figure(size + 1, size)
        axes = figure.add_subplot(xlabel="Predicted class", ylabel="True class", title=self.run)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class (%)")
        axes.grid(visible=False)
        if classes <= NAMED:
            short = max(map(len, self.classes)) <= 2
            axes.set_xticks(range(classes), self.classes, rotation=0 if short else 90)
            axes.set_yticks(range(classes), self.classes)
            for row, column in np.argwhere(counts):
                colour = "white" if shares[row, column] > 55 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
        return figure

    def _mistakes(self, images: Tensor) -> Figure:
        columns = min(6, len(images))
        rows = -(-len(images) // columns)
        figure = new_figure(max(1.55 * columns, 5), 1.9 * rows + 0.6)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        pixels = images.float().permute(0, 2, 3, 1).numpy()
        pixels = (pixels - pixels.min()) / max(pixels.max() - pixels.min(), 1e-6)
        for panel in panels:
            panel.axis("off")
        for panel, picture, mistake in zip(panels, pixels, self.mistakes, strict=False):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
            title = f"{mistake.predicted}, {mistake.confidence:.0%}\n(is {mistake.true})"
            panel.set_title(title, fontsize=9, linespacing=1.1)
        figure.suptitle(f"{self.run}: predicted with confidence (and what it is)")
        return figure


def evaluate_run(folder: Path, part: Part = "test", time_steps: Sequence[int] | None = None) -> RunEvaluation:
    """Measures a complete run, and writes evaluation.json, evaluation.md and pictures to its folder `evaluation`.

    Args:
        folder: of the run.
        part: of the data.
        time_steps: at which T to measure, besides the trained one; from 1 to twice the trained one by default.

    Raises:
        ValueError: no complete run, the checkpoint of another network, another data set, or T below 1.
        OSError: the data are missing, or the folder cannot be written to.
    """
    trained = TrainedRun.read(folder)
    recipe, kind = trained.run.setting, procedure_of(trained.run.method)
    own, dataset = trained.time_steps, trained.dataset
    _check_same(dataset, trained)
    split: Split = getattr(dataset, part)
    if dataset.time_steps is not None:
        if time_steps:
            raise ValueError(f"a recording of {dataset.name} has {own} frames: no other T can be measured")
        time_steps = []
    with isolated(trained.run.seed, recipe.training.threads), quiet():
        measured = {
            steps: kind.evaluate(trained.run, network, split, dataset)
            for steps, network in _networks(trained, time_steps).items()
        }
    at_own, neurons = measured[own], measured[own].neurons_per_layer
    predicted, classes = at_own.scores.argmax(-1), list(dataset.classes)
    evaluation = RunEvaluation(
        run=f"{recipe.name}, {trained.run.label}",
        part=part,
        images=len(split),
        time_steps=own,
        accuracy={steps: each.accuracy for steps, each in measured.items()},
        spikes_per_image={steps: each.spikes_per_image for steps, each in measured.items()},
        layers=[
            Layer(name, neurons[name], spikes, spikes / (neurons[name] * own))
            for name, spikes in at_own.spikes_per_layer.items()
        ],
        classes=classes,
        confusion=confusion_matrix(split.labels.numpy(), predicted.numpy(), labels=range(len(classes))).tolist(),
        mistakes=_mistakes(at_own.scores, split.labels, classes),
    )
    figures = evaluation.figures(split.pictures([mistake.image for mistake in evaluation.mistakes]))
    write_page(folder / "evaluation" / "evaluation", evaluation, evaluation.tables(), figures)
    return evaluation


def _networks(trained: TrainedRun, chosen: Sequence[int] | None) -> dict[int, nn.Module]:
    """The network at the trained T and others: those chosen, or up to twice the trained one, doubling from afar."""
    own = trained.time_steps
    networks = {own: trained.network()}
    usual = range(1, BEYOND * own + 1) if own <= FEW else [2**power for power in range((BEYOND * own).bit_length())]
    for steps in usual if chosen is None else chosen:
        try:
            networks[steps] = trained.network(steps)
        except ValueError:  # networks without spikes, and those with TEBN, have a T of their own
            if chosen is not None:
                raise
    return dict(sorted(networks.items()))


def _check_same(dataset: Dataset, trained: TrainedRun) -> None:
    here = {"classes": list(dataset.classes), "image_shape": [dataset.channels, *dataset.image_size]}
    for name, value in here.items():
        if value != trained.result[name]:
            raise ValueError(f"{dataset.name} has another {name} ({value}) than in training ({trained.result[name]})")


def _mistakes(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> list[Mistake]:
    confidence, predicted = torch.softmax(scores, -1).max(-1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:SHOWN]
    return [
        Mistake(image, classes[int(labels[image])], classes[int(predicted[image])], float(confidence[image]))
        for image in order.tolist()
    ]
