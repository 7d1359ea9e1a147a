"""Figures for colour-blind readers too: every method has a colour and a marker of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito (2008)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tracegrad",  # the same figure gives the same file
}


def colour_of(index: int) -> str:
    """The colour of a method."""
    return COLOURS[index % len(COLOURS)]


def marker_of(index: int) -> str:
    """The marker of a method: no two of 49 methods share both colour and marker."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def accuracy_against(
    cost: str, title: str, costs: Mapping[str, Sequence[float]], accuracy: Mapping[str, Sequence[float]]
) -> dict[str, bytes]:
    """Draws test accuracy against what it costs: a small point per run, a large one for each method's mean.

    Args:
        cost: what it is, with its unit: the label of the axis.
        title: of the figure.
        costs: of each method's runs; on a logarithmic axis where they differ by more than a factor of ten.
        accuracy: in per cent, in the same order.

    Returns:
        The figure as "png" and "svg".
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2) if len(costs) <= 6 else (8.0, 5.8), layout="constrained")
        axes = figure.add_subplot()
        for index, method in enumerate(costs):
            colour, marker = colour_of(index), marker_of(index)
            axes.scatter(costs[method], accuracy[method], s=36, color=colour, marker=marker, alpha=0.65, linewidths=0)
            mean = fmean(costs[method]), fmean(accuracy[method])
            axes.scatter(
                *mean,
                s=170,
                color=colour,
                marker=marker,
                edgecolors="white",
                linewidths=1.5,
                label=f"{method} (mean)",
                zorder=3,
            )
        axes.scatter([], [], s=36, color="0.5", marker="o", alpha=0.65, linewidths=0, label="one run")
        axes.set(title=title, xlabel=cost, ylabel="Test accuracy (%)")
        every = [value for values in costs.values() for value in values]
        if max(every) > 10 * min(every) > 0:
            axes.set_xscale("log")
        axes.margins(0.12)
        legend_below(figure, *axes.get_legend_handles_labels(), columns=3)
        return {"png": to_png(figure), "svg": _save(figure, "svg", metadata={"Date": None})}


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Gives the figure a legend below it, in fewer columns than these where it would be wider than the figure."""
    for ncols in range(columns, 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False)
        figure.draw_without_rendering()
        if ncols == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def to_png(figure: Figure) -> bytes:
    """A figure as a picture."""
    return _save(figure, "png", dpi=160)


def _save(figure: Figure, suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=suffix, **options)
    return file.getvalue()
