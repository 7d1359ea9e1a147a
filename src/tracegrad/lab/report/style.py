"""How figures look, for colour-blind readers too, and how they become files or part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Nearly black, grey and white: a page puts its own in their place, which change with its light or dark theme.
INK, FAINT, PAPER = "#010203", "#e5e6e7", "#fefdfc"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito (2008)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
THEME = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)", COLOURS[0].lower(): "var(--blue)"}

Figures = dict[str, tuple[str, Figure]]
"""A caption and a figure each, by name."""

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.parse_math": False,  # names are names
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tracegrad",  # the same figure gives the same file
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def look_of(index: int) -> dict[str, Any]:
    """Colour, marker and line of a method: no two share any of them up to seven, nor two of them up to 49."""
    step = index // len(COLOURS)
    marker, line = MARKERS[(index + step) % len(MARKERS)], LINES[index % len(LINES)]
    return {"color": COLOURS[index % len(COLOURS)], "marker": marker, "linestyle": line}


def looks_of(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options of the lines of methods."""
    return {method: look_of(index) for index, method in enumerate(methods)}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_below(figure: Figure, columns: int) -> None:
    """Gives a figure its first panel's legend below it, in fewer columns where it would be wider than the figure."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for ncols in range(columns, 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=ncols)
        figure.draw_without_rendering()
        if ncols == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def to_png(figure: Figure) -> bytes:
    """A figure as a picture."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="png", dpi=160)
    return file.getvalue()


def to_svg(figure: Figure, background: str = "white") -> str:
    """A figure as a file of vectors, the same each time."""
    file = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata=metadata, facecolor=background)
    return file.getvalue()


def to_element(figure: Figure, key: str) -> str:
    """A figure as an SVG element for a page that holds several.

    Args:
        figure: drawn in `STYLE`.
        key: begins every id in it, so that ids of several figures differ.
    """
    svg = to_svg(figure, background="none")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    width = 72 * figure.get_figwidth()
    size = f' style="max-width: {width:.0f}pt; min-width: {0.75 * width:.0f}pt"'  # a narrow page scrolls wide figures
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', size, svg, count=1)
    svg = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # half the size
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    return svg
