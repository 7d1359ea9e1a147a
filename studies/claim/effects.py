"""The claim as a picture: what each method changes in test accuracy, pair by pair, beside its control."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from tracegrad.lab.report.comparing import Pairs, difference
from tracegrad.lab.report.quantities import ACCURACY
from tracegrad.lab.report.style import COLOURS, FAINT, INK, STYLE, new_figure


@mpl.rc_context(STYLE)
def effects_figure(title: str, compared: Sequence[tuple[str, Pairs]], margin: float) -> Figure:
    """A row for each comparison: a point a pair, the mean with its 95 % t interval; a band from -margin to margin.

    Args:
        title: of the figure.
        compared: what is compared, and the runs with the same seeds; against the baseline where the name says so.
        margin: in points, what is too small to matter.
    """
    figure = new_figure(7.4, 1.5 + 0.42 * len(compared))
    axes = figure.add_subplot()
    axes.axvspan(-margin, margin, color=FAINT, lw=0, label=f"within {margin:g} points")
    axes.axvline(0, color=INK, lw=0.8)
    for row, (name, pairs) in enumerate(compared):
        colour = COLOURS[0] if name.endswith("- baseline") else COLOURS[1]
        values = [ACCURACY(run) - ACCURACY(other) for run, other in pairs]
        found = difference(pairs, ACCURACY)
        axes.plot(values, [row] * len(values), ls="", marker="o", ms=4.5, color=colour, alpha=0.35, markeredgewidth=0)
        axes.plot([found.low, found.high], [row, row], color=colour, lw=2.4, solid_capstyle="butt")
        axes.plot(found.mean, row, ls="", marker="D", ms=7, color=colour)
    axes.plot([], [], ls="", marker="o", ms=4.5, color=INK, alpha=0.4, markeredgewidth=0, label="one seed")
    axes.plot([], [], color=INK, lw=2.4, marker="D", ms=6, label="mean, 95 % interval")
    axes.set_yticks(range(len(compared)), [name.replace(" - ", " − ") for name, _ in compared])
    axes.set(ylim=(len(compared) - 0.4, -0.6), xlabel="Difference in test accuracy (points)", title=title)
    axes.grid(visible=False, axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
