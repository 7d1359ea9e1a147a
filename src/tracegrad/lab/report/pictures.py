"""The report's figures of what happens inside a network: relations, scales, spikes and their traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracegrad.core.equations.trace import DECAY, spike_trace
from tracegrad.lab.report.quantities import relations_by_epoch
from tracegrad.lab.report.style import COLOURS, FAINT, INK, looks_of, new_figure
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.measure.relations import STATISTICS

POINTS = 100  # epochs per curve at most; more would not be seen
COLUMNS = 4  # panels in a row
QUANTITIES = {"relation": "R_hat", "scale": "Scale of the gradient"}


def relations_over_training(study: RunsOfStudy, method: str, quantity: str) -> Figure | None:
    """A panel per synapse: median, middle half and middle 90 % of a quantity by epoch, means over the seeds.

    Args:
        study: the runs.
        method: the one to show.
        quantity: "relation" or "scale", as in relations.csv.
    """
    curves = relations_by_epoch(study.of(method), quantity)
    if not curves:
        return None
    columns, rows = min(COLUMNS, len(curves)), -(-len(curves) // COLUMNS)
    figure = new_figure(max(2.3 * columns, 4.5), 1.7 * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    colour = looks_of(study.recipe.methods)[method]["color"]
    for panel, (synapse, by_epoch) in zip(panels, curves.items(), strict=False):
        epochs = list(by_epoch)[:: -len(by_epoch) // POINTS][::-1]  # thinned, and the last one stays
        lines = {name: [by_epoch[epoch][name] for epoch in epochs] for name in STATISTICS}
        panel.fill_between(epochs, lines["q05"], lines["q95"], color=colour, alpha=0.15, lw=0, label="5 to 95 %")
        panel.fill_between(epochs, lines["q25"], lines["q75"], color=colour, alpha=0.3, lw=0, label="25 to 75 %")
        marker = "." if len(epochs) <= 2 else ""
        panel.plot(epochs, lines["q50"], color=colour, marker=marker, label="median")
        panel.plot(epochs, lines["mean"], color=INK, ls=":", marker=marker, label="mean")
        panel.set_title(synapse, fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.tick_params(labelbottom=True)
    for panel in panels[len(curves) :]:
        panel.remove()
    figure.supxlabel("Epoch", fontsize="medium")
    figure.supylabel(QUANTITIES[quantity], fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def relation_picture(runs: Mapping[str, FinishedRun], synapse: str) -> Figure:
    """R_hat of a synapse as a picture: a row per output, a column per input channel, one panel per method.

    Args:
        runs: one per method, each with `synapse` in its probe.
        synapse: which.
    """
    figure = new_figure(max(4.2 * len(runs), 5.4), 4.2)
    pictures = [run.probe[f"{synapse}/relation"] for run in runs.values()]
    limits = {"vmin": min(0.0, *map(np.min, pictures)), "vmax": max(map(np.max, pictures))}
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for panel, picture, (method, run) in zip(panels, pictures, runs.items(), strict=True):
        panel.imshow(picture, cmap="cividis", interpolation="none", aspect="auto", **limits)
        panel.set(title=f"{method}, seed {run.run.seed}", xlabel="Pre-synaptic channel", ylabel="Post-synaptic channel")
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
    highest = 1.0
    for (raster, trace), end, colour in zip(panels.T, ("pre", "post"), COLOURS, strict=False):
        spikes, places = run.probe[f"{synapse}/{end}_spikes"], run.probe[f"{synapse}/{end}_places"]
        _raster(raster, spikes, [", ".join(map(str, place)) for place in places], colour)
        axes = "channel, row, column" if places.shape[1] == 3 else "index"
        raster.set(title=f"{end.capitalize()}-synaptic neurons", ylabel=f"Neuron ({axes})")
        highest = max(highest, _trace(trace, spikes[:, 0], colour))
        trace.set(xlabel="Time step", ylabel=f"Trace of {', '.join(map(str, places[0]))}")
    for panel in panels[1]:
        panel.set(ylim=(0, 1.15 * highest), xlim=(0.6, time_steps + 1.05))
        panel.set_xticks(range(1, time_steps + 1, -(-time_steps // 12)))
    return figure


def _raster(axes: Axes, spikes: NDArray[Any], names: list[str], colour: str) -> None:
    """A row per neuron, the chosen one on top and in colour."""
    for row, train in enumerate(spikes.T):
        steps = np.flatnonzero(train) + 1
        axes.vlines(steps, row - 0.36, row + 0.36, color=INK if row else colour, lw=2 if row else 4)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.get_yticklabels()[0].set_color(colour)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", color=FAINT)


def _trace(axes: Axes, train: NDArray[Any], colour: str) -> float:
    """The trace of a neuron (Eq. 5) with its decay between the steps; returns its highest value."""
    values = spike_trace(torch.from_numpy(train).double()).numpy()
    steps, between = np.arange(1, len(values) + 1), np.linspace(0, 1, 20)
    times, curve = (steps[:, None] + between).ravel(), (values[:, None] * DECAY**between).ravel()
    axes.plot([1, *times], [0, *curve], color=colour)
    axes.plot(steps, values, ls="", marker="o", ms=5, color=colour)
    return float(values.max())
