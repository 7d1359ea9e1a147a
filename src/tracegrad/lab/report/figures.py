"""The report's figures of results: accuracy, spikes, learning curves, firing rates."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracegrad.lab.report.drawing import FAINT, INK, PAPER, Look, new_figure
from tracegrad.lab.report.style import legend_below
from tracegrad.lab.report.tables import accuracy, firing_rates, spikes
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy


def accuracy_against_spikes(study: RunsOfStudy, look: Look) -> Figure:
    """A point per run, a line between the runs of one seed and the baseline's, a large point for each mean."""
    figure = new_figure(7.2, 3.9 + 0.13 * len(study.recipe.methods))  # the legend grows with the methods
    axes = figure.add_subplot()
    baseline = study.recipe.baseline
    for method in study.recipe.methods:
        for run, other in study.pairs(method, baseline) if baseline and method != baseline else []:
            axes.plot(
                [spikes(run), spikes(other)], [accuracy(run), accuracy(other)], color=INK, lw=0.8, alpha=0.35, zorder=1
            )
        runs = study.of(method)
        x, y = [spikes(run) for run in runs], [accuracy(run) for run in runs]
        shape: dict[str, Any] = {"color": look.colour(method), "marker": look.marker(method)}
        axes.scatter(x, y, s=40, alpha=0.7, linewidths=0, zorder=2, **shape)
        axes.scatter(
            fmean(x), fmean(y), s=180, edgecolors=PAPER, linewidths=1.5, zorder=3, label=f"{method}, mean", **shape
        )
    axes.scatter([], [], s=40, color=INK, alpha=0.5, linewidths=0, label="one run")
    if len(study.recipe.methods) > 1 and baseline:
        axes.plot([], [], color=INK, lw=0.8, alpha=0.5, label="same seed")
    axes.set(xlabel="Spikes per test image (thousands)", ylabel="Test accuracy (%)")
    axes.margins(0.12)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=3)
    return figure


def learning_curves(study: RunsOfStudy, look: Look) -> Figure | None:
    """Training loss and validation accuracy by epoch: the mean over seeds in a band from the lowest to the highest."""
    methods = [method for method in study.recipe.methods if any(run.epochs for run in study.of(method))]
    if not methods:
        return None
    figure = new_figure(9.2, 3.9)
    panels: list[Axes] = list(figure.subplots(1, 2))
    for method in methods:
        runs = [run for run in study.of(method) if run.epochs]
        _curve(panels[0], runs, "train_loss", 1, method, look)
        _curve(panels[1], runs, "validation_accuracy", 100, method, look)
    panels[0].set(xlabel="Epoch", ylabel="Training loss")
    panels[1].set(xlabel="Epoch", ylabel="Validation accuracy (%)")
    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below(figure, *panels[0].get_legend_handles_labels(), columns=4)
    return figure


def _curve(axes: Axes, runs: Sequence[FinishedRun], column: str, factor: float, method: str, look: Look) -> None:
    by_epoch: dict[float, list[float]] = {}
    for run in runs:
        for row in run.epochs:
            by_epoch.setdefault(row["epoch"], []).append(factor * row[column])
    epochs, values = list(by_epoch), list(by_epoch.values())
    axes.plot(
        epochs, [fmean(each) for each in values], label=method, markevery=max(len(epochs) // 8, 1), **look.curve(method)
    )
    if len(runs) > 1:
        low, high = [min(each) for each in values], [max(each) for each in values]
        axes.fill_between(epochs, low, high, color=look.colour(method), alpha=0.18, linewidth=0)


def firing_rates_of_layers(study: RunsOfStudy, look: Look) -> Figure | None:
    """Firing rate of every layer, from the input upwards: the mean over seeds, and a bar from lowest to highest."""
    rates = {method: firing_rates(study.of(method)) for method in study.recipe.methods}
    rates = {method: layers for method, layers in rates.items() if layers}
    if not rates:
        return None
    layers = list(dict.fromkeys(layer for of_method in rates.values() for layer in of_method))
    figure = new_figure(7.2, 1.4 + 0.34 * len(layers))
    axes = figure.add_subplot()
    for index, (method, of_layer) in enumerate(rates.items()):
        shift = 0.5 * (index - (len(rates) - 1) / 2) / max(len(rates), 2)
        places = [place + shift for place, layer in enumerate(layers) if layer in of_layer]
        values = [of_layer[layer] for layer in layers if layer in of_layer]
        axes.hlines(places, [min(each) for each in values], [max(each) for each in values], color=look.colour(method))
        means = [fmean(each) for each in values]
        axes.plot(means, places, ls="", ms=6, color=look.colour(method), marker=look.marker(method), label=method)
    axes.set_yticks(range(len(layers)), layers)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(xlabel="Firing rate (spikes per neuron and time step)", ylabel="Neuron layer, input first")
    axes.grid(axis="y", color=FAINT)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=4)
    return figure
