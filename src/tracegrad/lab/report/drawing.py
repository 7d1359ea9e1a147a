"""How the report's figures look, and how they become part of its page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracegrad.lab.report.style import COLOURS, STYLE, colour_of, marker_of

LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

# Colours that the page replaces by its own, which change with its light or dark theme.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
THEME = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)", COLOURS[0].lower(): "var(--blue)"}

REPORT_STYLE: dict[Any, Any] = {
    **STYLE,
    "font.size": 11,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 11,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def report_style() -> Any:
    """A context in which the report's figures are drawn."""
    return mpl.rc_context(REPORT_STYLE)


class Look:
    """Colour, marker and line of every method: no two share any of them up to seven, nor two of them up to 49."""

    def __init__(self, methods: Iterable[str]) -> None:
        self._index = {method: index for index, method in enumerate(methods)}

    def colour(self, method: str) -> str:
        """A colour that colour-blind readers can tell from the others."""
        colour = colour_of(self._index[method])
        return INK if colour == "#000000" else colour

    def marker(self, method: str) -> str:
        """The shape of its points."""
        return marker_of(self._index[method])

    def line(self, method: str) -> Any:
        """The pattern of its lines."""
        return LINES[self._index[method] % len(LINES)]

    def curve(self, method: str) -> dict[str, Any]:
        """Options of a line with markers."""
        return {
            "color": self.colour(method),
            "marker": self.marker(method),
            "linestyle": self.line(method),
            "markersize": 5,
        }


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def grid_of_axes(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels with shared axes, each of a width and height in inches, plus room for labels."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(max(columns * width, 4.5), rows * height + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel in panels[count:]:
        panel.remove()
    for panel in panels[max(count - columns, 0) : count]:
        panel.tick_params(labelbottom=True)
    return figure, panels[:count]


def to_svg(figure: Figure, key: str) -> str:
    """A figure as an SVG element for a page that holds several.

    Args:
        figure: drawn in `REPORT_STYLE`.
        key: begins every id in it, so that ids of several figures differ.
    """
    file = io.StringIO()
    with report_style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    width = 72 * figure.get_figwidth()
    size = f' style="max-width: {width:.0f}pt; min-width: {0.75 * width:.0f}pt"'  # a narrow page scrolls wide figures
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', size, svg, count=1)
    svg = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # half the size
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    return svg
