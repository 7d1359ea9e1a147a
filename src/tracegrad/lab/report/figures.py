"""The report's figures: results, learning, and what happens inside a network. Each is given with its caption."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tracegrad.core.equations.trace import DECAY, spike_trace
from tracegrad.lab.report.quantities import ACCURACY, ENERGY, SPIKES, Quantity, relations_by_epoch
from tracegrad.lab.report.style import COLOURS, FAINT, INK, PAPER, Figures, legend_below, looks_of, new_figure
from tracegrad.lab.report.tables import is_comparison
from tracegrad.lab.studies.collect import RunsOfStudy
from tracegrad.measure.relations import STATISTICS

POINTS = 100  # epochs per curve at most; more would not be seen
COLUMNS = 4  # panels in a row


def study_figure(study: RunsOfStudy) -> Figure:
    """Accuracy against what an image costs: energy where kinds of networks differ, spikes otherwise."""
    energies = any(run.result.get(ENERGY.field) is not None for run in study.runs.values())
    figure = accuracy_against(ENERGY if is_comparison(study.recipe) and energies else SPIKES, study)
    figure.axes[0].set_title(study.name)
    return figure


def accuracy_against(cost: Quantity, study: RunsOfStudy) -> Figure:
    """A point per run, a line between the runs of one seed and the baseline's, a large point for each mean.

    The axis of the cost is logarithmic where it spans more than a factor of ten; runs that have not recorded it are
    left out.
    """
    figure = new_figure(7.2, 3.9 + 0.13 * len(study.recipe.methods))  # the legend grows with the methods
    axes = figure.add_subplot()
    for pairs in study.against_baseline().values():
        for pair in pairs:
            axes.plot([*map(cost, pair)], [*map(ACCURACY, pair)], color=INK, lw=0.8, alpha=0.35, zorder=1)
    every: list[float] = []
    for method, look in looks_of(study.recipe.methods).items():
        runs = [run for run in study.of(method) if not math.isnan(cost(run))]
        if runs:
            x, y = [cost(run) for run in runs], [ACCURACY(run) for run in runs]
            point = dict[str, Any](look, linestyle="", markeredgecolor=PAPER)
            axes.plot(x, y, **point, ms=6.3, alpha=0.7, markeredgewidth=0, zorder=2)
            axes.plot(fmean(x), fmean(y), **point, ms=13.4, markeredgewidth=1.5, zorder=3, label=f"{method} (mean)")
            every += x
    axes.plot([], [], color=INK, marker="o", ls="", ms=6.3, alpha=0.5, markeredgewidth=0, label="one run")
    if study.against_baseline():
        axes.plot([], [], color=INK, lw=0.8, alpha=0.5, label="same seed")
    axes.set(xlabel=cost.label, ylabel=ACCURACY.label, xscale="log" if max(every) > 10 * min(every) > 0 else "linear")
    axes.margins(0.12)
    legend_below(figure, 3)
    return figure


def learning_curves(study: RunsOfStudy) -> Figures:
    """Training loss and validation accuracy by epoch: the mean over seeds in a band from the lowest to the highest."""
    if not any(run.epochs for run in study.runs.values()):
        return {}
    figure = new_figure(9.2, 3.9)
    columns = {"Training loss": ("train_loss", 1), "Validation accuracy (%)": ("validation_accuracy", 100)}
    for axes, (label, (column, factor)) in zip(figure.subplots(1, 2), columns.items(), strict=True):
        for method, look in looks_of(study.recipe.methods).items():
            by_epoch: dict[float, list[float]] = {}
            for row in (row for run in study.of(method) for row in run.epochs):
                by_epoch.setdefault(row["epoch"], []).append(factor * row[column])
            if by_epoch:
                epochs, values = [*by_epoch], by_epoch.values()
                axes.plot(epochs, [*map(fmean, values)], **look, ms=5, markevery=-(-len(epochs) // 8), label=method)
                band = [*map(min, values)], [*map(max, values)]
                axes.fill_between(epochs, *band, color=look["color"], alpha=0.18, lw=0)
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below(figure, 4)
    caption = "The line is the mean over the seeds, the band reaches from the lowest to the highest seed."
    return {"learning": (caption, figure)}


def firing_rates_of_layers(rates: Mapping[str, Mapping[str, Sequence[float]]], methods: Iterable[str]) -> Figure:
    """Firing rate of every layer, from the input upwards: the mean of some values, and a bar from lowest to highest.

    Args:
        rates: by method and layer.
        methods: all of the study, which give each its colour and marker.
    """
    layers = list(dict.fromkeys(layer for of_method in rates.values() for layer in of_method))
    figure = new_figure(7.2, 1.4 + 0.34 * len(layers))
    axes = figure.add_subplot()
    looks = looks_of(methods)
    for index, (method, of_layer) in enumerate(rates.items()):
        shift = 0.5 * (index - (len(rates) - 1) / 2) / max(len(rates), 2)
        places = [layers.index(layer) + shift for layer in of_layer]
        values, points = of_layer.values(), dict[str, Any](looks[method], linestyle="")
        axes.hlines(places, [*map(min, values)], [*map(max, values)], color=points["color"])
        axes.plot([*map(fmean, values)], places, ms=6, label=method, **points)
    axes.set_yticks(range(len(layers)), layers)
    axes.set(xlim=(0, None), ylim=(len(layers) - 0.5, -0.5))
    axes.set(xlabel="Firing rate (spikes per neuron and time step)", ylabel="Neuron layer, input first")
    axes.grid(axis="y", color=FAINT)
    legend_below(figure, 4)
    return figure


def relations_over_training(study: RunsOfStudy) -> Figures:
    """For R_hat and scale of each method, a panel per synapse: median, middle half and middle 90 % by epoch."""
    figures: Figures = {}
    for index, (method, look) in enumerate(looks_of(study.recipe.methods).items()):
        for quantity, label, caption in (
            ("relation", "R_hat", "R_hat of every scaled synapse over the training"),
            ("scale", "Scale of the gradient", "what the gradients of these weights are multiplied by"),
        ):
            if curves := relations_by_epoch(study.of(method), quantity):
                figures[f"{quantity}-{index}"] = f"{method}: {caption}.", _panels(curves, label, look["color"])
    return figures


def _panels(curves: dict[str, dict[float, dict[str, float]]], label: str, colour: str) -> Figure:
    columns, rows = min(COLUMNS, len(curves)), -(-len(curves) // COLUMNS)
    figure = new_figure(max(2.3 * columns, 4.5), 1.7 * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
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
    figure.supylabel(label, fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def relation_picture(study: RunsOfStudy, synapse: str) -> Figures:
    """R_hat of a synapse as a picture: a row per output, a column per input channel, one panel per method."""
    name = f"{synapse}/relation"
    runs = {method: [run for run in study.of(method) if name in run.probe] for method in study.recipe.methods}
    first = {method: of_method[0] for method, of_method in runs.items() if of_method}
    if not first:
        return {}
    figure = new_figure(max(4.2 * len(first), 5.4), 4.2)
    pictures = [run.probe[name] for run in first.values()]
    limits = {"vmin": min(0.0, *map(np.min, pictures)), "vmax": max(map(np.max, pictures))}
    panels = figure.subplots(1, len(first), squeeze=False)[0]
    for panel, picture, (method, run) in zip(panels, pictures, first.items(), strict=True):
        panel.imshow(picture, cmap="cividis", interpolation="none", aspect="auto", **limits)
        panel.set(title=f"{method}, seed {run.run.seed}", xlabel="Pre-synaptic channel", ylabel="Post-synaptic channel")
        panel.grid(visible=False)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
    figure.colorbar(panels[0].images[0], ax=panels, label="R_hat, mean over kernel positions and time")
    caption = f"R_hat of {synapse} after the last epoch: one row per output, one column per input channel."
    return {"picture": (caption, figure)}


def spike_raster(study: RunsOfStudy, synapse: str) -> Figures:
    """Spikes at both ends of a synapse, and the traces of two neurons that it connects (the paper's Fig. 1)."""
    runs = [run for run in study.runs.values() if f"{synapse}/pre_spikes" in run.probe]
    if not runs:
        return {}
    run = max(runs, key=lambda run: (run.run.method.alpha > 0, -run.run.seed))
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
    caption = (
        f"Spikes at both ends of {synapse} for the first validation image, after the last epoch of {run.run.label}. "
        "A weight connects the two coloured neurons; below are their traces (Eq. 5): a spike adds 1, and every step "
        "leaves 1/e."
    )
    return {"raster": (caption, figure)}


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


def accuracy_and_spikes(title: str, accuracy: Mapping[int, float], spikes: Mapping[int, float]) -> Figure:
    """Accuracy (0 to 1) and spikes per image by T, in two panels."""
    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    style = {"marker": "o", "color": COLOURS[0]}
    left.plot(list(accuracy), [100 * value for value in accuracy.values()], **style)
    right.plot(list(spikes), [value / 1000 for value in spikes.values()], **style)
    left.set(xlabel="Time steps T", ylabel="Accuracy (%)")
    right.set(xlabel="Time steps T", ylabel="Spikes per image (thousands)", ylim=(0, None))
    figure.suptitle(title)
    return figure
