"""What a report consists of, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass

from tracegrad.lab.report.table import Table


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        key: its id in the page.
        svg: the figure as an SVG element.
        caption: what it shows.
    """

    key: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Listing:
    """Lines to copy: commands, a recipe.

    Args:
        title: what they are.
        text: the lines.
    """

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading.

    Args:
        title: the heading.
        parts: sentences, tables, pictures and listings in their order.
    """

    title: str
    parts: tuple[str | Table | Picture | Listing, ...]


@dataclass(frozen=True)
class Chapter:
    """Everything about one study.

    Args:
        name: of the study.
        description: the recipe's.
        summary: the result in a sentence per method.
        sections: the rest.
    """

    name: str
    description: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
