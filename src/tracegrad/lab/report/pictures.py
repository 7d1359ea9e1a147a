"""The report's figures of what happens inside a network: relations, scales, spikes and their traces."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracegrad.core.equations.trace import DECAY, spike_trace
from tracegrad.lab.report.drawing import FAINT, INK, Look, grid_of_axes, new_figure
from tracegrad.lab.report.style import COLOURS
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.measure.relations import STATISTICS

POINTS = 100  # epochs per curve at most; more would not be seen
PRE, POST = COLOURS[0], COLOURS[1]


def relations_over_training(study: RunsOfStudy, method: str, quantity: str, look: Look) -> Figure | None:
    """A panel per synapse: median, middle half and middle 90 % of a quantity by epoch, means over the seeds.

    Args:
        study: the runs.
        method: the one to show.
        quantity: "relation" or "scale", as in relations.csv.
        look: gives the method's colour.
    """
    curves = _over_epochs([run for run in study.of(method) if run.relations], quantity)
    if not curves:
        return None
    figure, panels = grid_of_axes(len(curves), 4, 2.3, 1.7)
    colour = look.colour(method)
    for panel, (synapse, rows) in zip(panels, curves.items(), strict=True):
        epochs = list(rows)
        lines = {name: [row[name] for row in rows.values()] for name in STATISTICS}
        panel.fill_between(epochs, lines["q05"], lines["q95"], color=colour, alpha=0.15, lw=0, label="5 to 95 %")
        panel.fill_between(epochs, lines["q25"], lines["q75"], color=colour, alpha=0.3, lw=0, label="25 to 75 %")
        marker = "." if len(epochs) <= 2 else ""
        panel.plot(epochs, lines["q50"], color=colour, marker=marker, label="median")
        panel.plot(epochs, lines["mean"], color=INK, ls=":", marker=marker, label="mean")
        panel.set_title(synapse, fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel("Epoch", fontsize=11)
    figure.supylabel({"relation": "R_hat", "scale": "Scale of the gradient"}[quantity], fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _over_epochs(runs: list[FinishedRun], quantity: str) -> dict[str, dict[float, dict[str, float]]]:
    """Statistics by synapse and epoch, means over runs."""
    rows: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for run in runs:
        for row in run.relations:
            if row["quantity"] == quantity:
                rows.setdefault(row["synapse"], {}).setdefault(row["epoch"], []).append(row)
    return {
        synapse: {
            epoch: {name: fmean(row[name] for row in by_epoch[epoch]) for name in STATISTICS}
            for epoch in _thinned(sorted(by_epoch))
        }
        for synapse, by_epoch in rows.items()
    }


def _thinned(epochs: list[float]) -> list[float]:
    step = -(-len(epochs) // POINTS)
    return epochs[::-step][::-1]  # the last one stays


def relation_picture(runs: dict[str, FinishedRun], synapse: str) -> Figure:
    """R_hat of a synapse as a picture: a row per output, a column per input channel, one panel per method.

    Args:
        runs: one per method, each with `synapse` in its probe.
        synapse: which.
    """
    figure = new_figure(max(4.2 * len(runs), 5.4), 4.2)
    pictures = {method: run.probe[f"{synapse}/relation"] for method, run in runs.items()}
    limits = (
        min(0.0, *(picture.min() for picture in pictures.values())),
        max(picture.max() for picture in pictures.values()),
    )
    panels: list[Axes] = figure.subplots(1, len(runs), squeeze=False).ravel().tolist()
    for panel, (method, picture) in zip(panels, pictures.items(), strict=True):
        panel.imshow(picture, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="none", aspect="auto")
        panel.set(
            title=f"{method}, seed {runs[method].run.seed}",
            xlabel="Pre-synaptic channel",
            ylabel="Post-synaptic channel",
        )
        panel.grid(visible=False)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
    figure.colorbar(panels[0].images[0], ax=panels, label="R_hat, mean over kernel positions and time")
    return figure


def spike_raster(run: FinishedRun, synapse: str) -> Figure:
    """Spikes at both ends of a synapse, and the traces of two neurons that it connects (the paper's Fig. 1).

    Args:
        run: with `synapse` in its probe.
        synapse: which.
    """
    figure, time_steps = new_figure(9.2, 5.6), run.run.setting.model.time_steps
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(2.4, 1))
    highest = 0.0
    for column, (end, name, colour) in enumerate((("pre", "Pre-synaptic", PRE), ("post", "Post-synaptic", POST))):
        spikes, places = run.probe[f"{synapse}/{end}_spikes"], run.probe[f"{synapse}/{end}_places"]
        _raster(panels[0, column], spikes, places, colour)
        panels[0, column].set(
            title=f"{name} neurons", ylabel=f"Neuron ({'channel, row, column' if places.shape[1] == 3 else 'index'})"
        )
        highest = max(highest, _trace(panels[1, column], spikes[:, 0], colour))
        panels[1, column].set(xlabel="Time step", ylabel=f"Trace of {', '.join(map(str, places[0]))}")
    for panel in panels[1]:
        panel.set_ylim(0, 1.15 * max(highest, 1))
        panel.set_xlim(0.6, time_steps + 1.05)
        panel.set_xticks(range(1, time_steps + 1, -(-time_steps // 12)))
    return figure


def _raster(axes: Axes, spikes: NDArray[Any], places: NDArray[Any], colour: str) -> None:
    """A row per neuron, the chosen one on top and in colour."""
    for row, train in enumerate(spikes.T):
        steps = np.flatnonzero(train) + 1
        axes.vlines(steps, row - 0.36, row + 0.36, color=INK if row else colour, lw=2 if row else 4)
    axes.set_yticks(range(len(places)), [", ".join(map(str, place)) for place in places], fontsize=9)
    axes.get_yticklabels()[0].set_color(colour)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.grid(axis="y", color=FAINT)


def _trace(axes: Axes, train: NDArray[Any], colour: str) -> float:
    """The trace of a neuron (Eq. 5) with its decay between the steps; returns its highest value."""
    values = spike_trace(torch.from_numpy(train).double()).numpy()
    between = np.linspace(0, 1, 20)
    times = np.concatenate([[1.0], *(step + 1 + between for step in range(len(values)))])
    curve = np.concatenate([[0.0], *(value * DECAY**between for value in values)])
    axes.plot(times, curve, color=colour)
    axes.plot(np.arange(len(values)) + 1, values, ls="", marker="o", ms=5, color=colour)
    return float(values.max())
