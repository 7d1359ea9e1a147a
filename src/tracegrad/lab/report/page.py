"""A report as Markdown, and as one HTML page that needs nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt

from tracegrad.lab.files import write
from tracegrad.lab.report.paper import CITATION
from tracegrad.lab.report.style import Figures, to_element, to_png
from tracegrad.lab.report.table import Table, escape

Block = str | Table | Figures
"""A heading, a paragraph or a listing in Markdown, a table, or figures; what is empty is left out."""


def to_markdown(blocks: Iterable[Block], image: str = "Figure in the page: {0}") -> str:
    """A report as Markdown.

    Args:
        blocks: what it consists of.
        image: what stands for a figure, of whose caption {0} and whose name {1} takes the place.
    """
    text: list[str] = []
    for block in filter(None, blocks):
        if isinstance(block, dict):
            text += [image.format(escape(caption), name) for name, (caption, _) in block.items()]
        else:
            text.append(block if isinstance(block, str) else block.markdown().rstrip())
    return "\n\n".join(text) + "\n"


def to_html(title: str, blocks: Iterable[Block]) -> str:
    """A report as a page: a section per heading, links to all of them, tables that scroll, figures in their place.

    Args:
        title: of the page.
        blocks: what it consists of; raw HTML in it is shown as text.
    """
    shown = list(filter(None, blocks))
    headings = {place: each for place, each in enumerate(shown) if isinstance(each, str) and each[:2] == "##"}
    templates = Environment(loader=PackageLoader("tracegrad.lab.report", ""), autoescape=True, trim_blocks=True)
    markdown = MarkdownIt("commonmark", {"html": False}).render
    values = {"title": title, "blocks": shown, "headings": headings, "cited": CITATION}
    return templates.get_template("page.html").render(values, markdown=markdown, svg=to_element)


def write_page(path: Path, facts: Any, tables: Sequence[Table], figures: Figures) -> None:
    """Writes what was measured, a dataclass, as PATH.json, tables and figures as PATH.md, each figure as NAME.png.

    Raises:
        OSError: as `tracegrad.lab.files.write`.
    """
    write(path.with_suffix(".json"), json.dumps(asdict(facts), indent=2) + "\n")
    write(path.with_suffix(".md"), to_markdown([*tables, figures], "![{0}]({1}.png)\n\n{0}"))
    for name, (_, figure) in figures.items():
        write(path.with_name(f"{name}.png"), to_png(figure))
