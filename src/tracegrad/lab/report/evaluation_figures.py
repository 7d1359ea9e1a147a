"""Pictures of a trained run, readable without colour, too."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tracegrad.lab.report.evaluation_content import RunEvaluation
from tracegrad.lab.report.style import COLOURS, STYLE, to_png

Picture = tuple[str, bytes]
"""A caption, and the picture as PNG."""

NAMED = 20  # classes up to this number are named, and their cells counted, in the confusion matrix


def draw(evaluation: RunEvaluation, images: Tensor) -> dict[str, Picture]:
    """Draws an evaluation.

    Args:
        evaluation: what to draw.
        images: [mistakes, C, H, W], those of its mistakes.

    Returns:
        By name: time-steps, firing-rates, confusion, and mistakes if there are any.
    """
    trained = f"T = {evaluation.time_steps}"
    with mpl.rc_context(STYLE):
        pictures = {
            "time-steps": ("Accuracy and spikes against the number of time steps", _time_steps(evaluation)),
            "firing-rates": (f"Firing rates of the neuron layers at {trained}", _firing_rates(evaluation)),
            "confusion": (f"Confusion matrix at {trained}", _confusion(evaluation)),
        }
        if evaluation.mistakes:
            pictures["mistakes"] = f"The most confident mistakes at {trained}", _mistakes(evaluation, images)
        return {name: (caption, to_png(figure)) for name, (caption, figure) in pictures.items()}


def _time_steps(evaluation: RunEvaluation) -> Figure:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = list(evaluation.accuracy)
    _curve(left, steps, [100 * value for value in evaluation.accuracy.values()], evaluation.time_steps)
    _curve(right, steps, [value / 1000 for value in evaluation.spikes_per_image.values()], evaluation.time_steps)
    left.set(xlabel="Time steps T", ylabel=f"{evaluation.part.capitalize()} accuracy (%)")
    right.set(xlabel="Time steps T", ylabel="Spikes per image (thousands)", ylim=(0, None))
    figure.suptitle(evaluation.run)
    return figure


def _curve(axes: Axes, steps: list[int], values: list[float], trained: int) -> None:
    axes.axvline(trained, color="0.6", linestyle="--", linewidth=1)
    axes.annotate(
        "trained", (trained, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points"
    )
    axes.plot(steps, values, marker="o", color=COLOURS[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _firing_rates(evaluation: RunEvaluation) -> Figure:
    layers = evaluation.layers
    figure = Figure(figsize=(7, 1.3 + 0.3 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    names = [layer.name for layer in layers]
    bars = axes.barh(names, [layer.firing_rate for layer in layers], color=COLOURS[0], height=0.7)
    axes.bar_label(bars, fmt="%.3f", padding=3)
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
    figure = Figure(figsize=(size + 1, size), layout="constrained")
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
    figure = Figure(figsize=(max(1.55 * columns, 5), 1.9 * rows + 0.6), layout="constrained")
    panels: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    pixels = images.float().permute(0, 2, 3, 1).numpy()
    pixels = (pixels - pixels.min()) / max(pixels.max() - pixels.min(), 1e-6)
    for panel in panels:
        panel.axis("off")
    for panel, picture, mistake in zip(panels, pixels, evaluation.mistakes, strict=False):
        panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
        panel.set_title(
            f"{mistake.predicted}, {mistake.confidence:.0%}\n(is {mistake.true})", fontsize=9, linespacing=1.1
        )
    figure.suptitle(f"{evaluation.run}: predicted with confidence (and what it is)")
    return figure
