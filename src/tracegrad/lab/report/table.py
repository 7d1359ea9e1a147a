"""Tables as Markdown, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass

import rich.box
import rich.table
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """A table of finished text; false without rows.

    Args:
        title: what the table shows.
        header: one title per column, with its unit.
        rows: cells; the first column is aligned left, the others right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def markdown(self) -> str:
        """The table as GitHub Markdown, with its title above."""
        header, *rows = (f"| {' | '.join(map(escape, line))} |" for line in (self.header, *self.rows))
        ruler = f"| {' | '.join(['---', *['---:'] * (len(self.header) - 1)])} |"
        return "\n".join([f"**{escape(self.title)}**", "", header, ruler, *rows, ""])

    def csv(self) -> str:
        """The table as CSV, without its title."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def rich(self) -> rich.table.Table:
        """The table for a terminal."""
        look = {"title_justify": "left", "title_style": "bold", "box": rich.box.SIMPLE_HEAD, "padding": 0}
        table = rich.table.Table(title=Text(self.title), **look)  # pyright: ignore[reportArgumentType]
        for index, name in enumerate(self.header):
            table.add_column(Text(name), justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed digits; an en dash where there is none (NaN)."""
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) + 0.0  # no negative zero
    return f"{rounded:{'+' if sign else ''}.{digits}f}"


def escape(text: str) -> str:
    """Text as Markdown within a line that shows it as it is: names and descriptions are the user's."""
    line = " ".join(text.splitlines()).strip()
    return re.sub(r"[\\`*<\[\]|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#+$", r"\\\g<0>", line)


def paragraph(text: str) -> str:
    """Text as a paragraph of Markdown, whatever it begins with: no list, no heading."""
    return re.sub(r"^(\d*)(>|[-+#.)]+(?=\s|$))", r"\1\\\2", escape(text))
