"""Pictures of the results."""

from __future__ import annotations

import io
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from tracegrad.lab.report.style import COLOURS, MARKERS, STYLE, to_png
from tracegrad_benchmark.intervals import growth_exponent
from tracegrad_benchmark.results import Results
from tracegrad_benchmark.tables import AXES

TITLES = {"training": "Training step", "inference": "Inference"}


def figures(results: Results) -> dict[str, bytes]:
    """File names and contents: speed.svg, speed.png, growth.svg, growth.png, as far as measured."""
    files: dict[str, bytes] = {}
    with mpl.rc_context(STYLE):
        if sections := [section for section in TITLES if section in results.sections]:
            files |= _files("speed", _speed(results, sections))
        if "growth" in results.sections:
            files |= _files("growth", _growth(results))
    return files


def _speed(results: Results, sections: list[str]) -> Figure:
    """Bars of images per second, a colour for each library."""
    counts = [len(results.rows(section)) for section in sections]
    figure = Figure(figsize=(7.5, 0.6 * len(sections) + 0.3 * sum(counts) + 0.6), layout="constrained")
    panels = figure.subplots(len(sections), squeeze=False, height_ratios=counts)[:, 0]
    libraries = list(dict.fromkeys(each["library"] for each in results.facts["competitors"].values()))
    for axes, section in zip(panels, sections, strict=True):
        _bars(axes, results, section, libraries)
    return figure


def _bars(axes: Axes, results: Results, section: str, libraries: list[str]) -> None:
    rows = results.rows(section)
    for position, row in enumerate(rows):
        speed = row.images_per_second
        colour = COLOURS[libraries.index(results.library(row.name)) % len(COLOURS)]
        axes.barh(position, speed, color=colour, height=0.75)
        ratio = row.ratios.get("SpikingJelly")
        relative = f" ({1 / ratio.value:.2f} ×)" if ratio else ""
        axes.annotate(f"{speed:.1f}{relative}", (speed, position), (3, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.2, y=0.02)
    compared = any("SpikingJelly" in row.ratios for row in rows)
    note = " (× that of SpikingJelly, bf16)" if compared else ""
    title = f"{TITLES[section]}, batch {results.sections[section]['batch']}"
    axes.set(title=title, xlabel=f"Images per second{note}")


def _growth(results: Results) -> Figure:
    """Time against size on logarithmic axes, with the fitted exponents."""
    measured = results.sections["growth"]["seconds"]
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for axes, (axis, competitors) in zip(figure.subplots(2, 2).flat, measured.items(), strict=True):
        axes.set(xscale="log", yscale="log", xlabel=AXES[axis], ylabel="Seconds per training step")
        for index, (name, values) in enumerate(competitors.items()):
            medians = {int(size): median(seconds) for size, seconds in values.items()}
            label = f"{name}: size^{growth_exponent(medians):.2f}"
            axes.plot(list(medians), list(medians.values()), color=COLOURS[index], marker=MARKERS[index], label=label)
            axes.set_xticks(list(medians), list(map(str, medians)))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.margins(y=0.25)
        axes.legend(frameon=False, loc="upper left")
    return figure


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return {f"{name}.png": to_png(figure), f"{name}.svg": svg.getvalue()}
