"""What `tracegrad evaluate` and `tracegrad convert` write: curves over the number of time steps, and a page of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracegrad.lab.files import write
from tracegrad.lab.report.style import COLOURS, STYLE, new_figure, to_png
from tracegrad.lab.report.table import Table, escape

Part = Literal["test", "validation"]


def curves(title: str, accuracy: Mapping[int, float], spikes: Mapping[int, float]) -> tuple[Figure, Axes, Axes]:
    """Accuracy (0 to 1) and spikes per image by T, side by side: the figure, the left and the right panel."""
    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    style = {"marker": "o", "color": COLOURS[0]}
    left.plot(list(accuracy), [100 * value for value in accuracy.values()], **style)
    right.plot(list(spikes), [value / 1000 for value in spikes.values()], **style)
    left.set(xlabel="Time steps T", ylabel="Accuracy (%)")
    right.set(xlabel="Time steps T", ylabel="Spikes per image (thousands)", ylim=(0, None))
    figure.suptitle(title)
    return figure, left, right


def write_page(path: Path, facts: Any, tables: Sequence[Table], figures: Mapping[str, tuple[str, Figure]]) -> None:
    """Writes what was measured as PATH.json and PATH.md, and the figures beside it as NAME.png.

    Args:
        path: without an ending.
        facts: a dataclass.
        tables: first on the page.
        figures: a caption and a figure each, by name.

    Raises:
        OSError: as `tracegrad.lab.files.write`.
    """
    write(path.with_suffix(".json"), json.dumps(asdict(facts), indent=2) + "\n")
    text = [table.markdown() for table in tables]
    for name, (caption, figure) in figures.items():
        with mpl.rc_context(STYLE):
            write(path.with_name(f"{name}.png"), to_png(figure))
        text.append(f"![{escape(caption)}]({name}.png)\n\n{escape(caption)}\n")
    write(path.with_suffix(".md"), "\n".join(text))
