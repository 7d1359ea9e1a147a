"""The report's figures of results: accuracy against its cost, learning curves, firing rates."""

from __future__ import annotations

from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracegrad.lab.report.quantities import ACCURACY, ENERGY, SPIKES, Quantity, firing_rates
from tracegrad.lab.report.style import FAINT, INK, PAPER, legend_below, looks_of, new_figure
from tracegrad.lab.report.tables import is_comparison
from tracegrad.lab.studies.collect import RunsOfStudy


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
    for method, look in looks_of(study.recipe.methods).items():
        points = [(cost(run), ACCURACY(run)) for run in study.of(method) if cost(run) == cost(run)]
        if points:
            x, y = zip(*points, strict=True)
            point = {**look, "linestyle": "", "markeredgecolor": PAPER}
            axes.plot(x, y, **point, ms=6.3, alpha=0.7, markeredgewidth=0, zorder=2)
            axes.plot(fmean(x), fmean(y), **point, ms=13.4, markeredgewidth=1.5, zorder=3, label=f"{method} (mean)")
    axes.plot([], [], color=INK, marker="o", ls="", ms=6.3, alpha=0.5, markeredgewidth=0, label="one run")
    if study.against_baseline():
        axes.plot([], [], color=INK, lw=0.8, alpha=0.5, label="same seed")
    every = [cost(run) for run in study.runs.values() if cost(run) == cost(run)]
    axes.set(xlabel=cost.label, ylabel=ACCURACY.label, xscale="log" if max(every) > 10 * min(every) > 0 else "linear")
    axes.margins(0.12)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=3)
    return figure


def learning_curves(study: RunsOfStudy) -> Figure | None:
    """Training loss and validation accuracy by epoch: the mean over seeds in a band from the lowest to the highest."""
    if not any(run.epochs for run in study.runs.values()):
        return None
    figure = new_figure(9.2, 3.9)
    columns = {"Training loss": ("train_loss", 1), "Validation accuracy (%)": ("validation_accuracy", 100)}
    for axes, (label, (column, factor)) in zip(figure.subplots(1, 2), columns.items(), strict=True):
        for method, look in looks_of(study.recipe.methods).items():
            by_epoch: dict[float, list[float]] = {}
            for row in (row for run in study.of(method) for row in run.epochs):
                by_epoch.setdefault(row["epoch"], []).append(factor * row[column])
            if by_epoch:
                epochs, values = list(by_epoch), list(by_epoch.values())
                every = max(len(epochs) // 8, 1)
                axes.plot(epochs, [*map(fmean, values)], **look, ms=5, markevery=every, label=method)
                axes.fill_between(
                    epochs, [*map(min, values)], [*map(max, values)], color=look["color"], alpha=0.18, lw=0
                )
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below(figure, *figure.axes[0].get_legend_handles_labels(), columns=4)
    return figure


def firing_rates_of_layers(study: RunsOfStudy) -> Figure | None:
    """Firing rate of every layer, from the input upwards: the mean over seeds, and a bar from lowest to highest."""
    rates = firing_rates(study)
    if not rates:
        return None
    looks, layers = looks_of(study.recipe.methods), list(dict.fromkeys(layer for of in rates.values() for layer in of))
    figure = new_figure(7.2, 1.4 + 0.34 * len(layers))
    axes = figure.add_subplot()
    for index, (method, of_layer) in enumerate(rates.items()):
        shift = 0.5 * (index - (len(rates) - 1) / 2) / max(len(rates), 2)
        places = [layers.index(layer) + shift for layer in of_layer]
        values, look = of_layer.values(), looks[method]
        axes.hlines(places, [*map(min, values)], [*map(max, values)], color=look["color"])
        axes.plot([*map(fmean, values)], places, **look | {"linestyle": ""}, ms=6, label=method)
    axes.set_yticks(range(len(layers)), layers)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set(xlabel="Firing rate (spikes per neuron and time step)", ylabel="Neuron layer, input first")
    axes.grid(axis="y", color=FAINT)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=4)
    return figure
