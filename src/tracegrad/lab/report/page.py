"""A report as one HTML page that needs nothing from outside, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from tracegrad.lab.report.content import Chapter, Listing, Picture, Section
from tracegrad.lab.report.paper import CITATION
from tracegrad.lab.report.table import Table

# Should anything in the page ask for something outside of it, the browser refuses.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LONG = 12  # lines and rows, from which on a part is folded


def to_html(title: str, chapters: Sequence[Chapter], common: Sequence[Section]) -> str:
    """The page.

    Args:
        title: of the report.
        chapters: one per study.
        common: sections on all of them together, before the chapters.
    """
    style = (files("tracegrad.lab.report") / "style.css").read_text(encoding="utf-8")
    several = len(chapters) > 1
    body = [f"<h1>{escape(title)}</h1>"]
    for number, chapter in enumerate(chapters):
        name = f'<a href="#{number}-0">{escape(chapter.name)}</a>: ' if several else ""
        body += [f'<p class="summary">{name}{escape(sentence)}</p>' for sentence in chapter.summary]
    if not several:
        body.insert(1, f'<p class="soft">{escape(chapters[0].description)}</p>')
    body += [_section(section) for section in common]
    for number, chapter in enumerate(chapters):
        if several:
            body += [f"<h2>{escape(chapter.name)}</h2>", f'<p class="soft">{escape(chapter.description)}</p>']
        links = (f'<a href="#{number}-{place}">{escape(s.title)}</a>' for place, s in enumerate(chapter.sections))
        body.append(f"<nav>{''.join(links)}</nav>")
        body += [_section(section, f' id="{number}-{place}"') for place, section in enumerate(chapter.sections)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def to_markdown(title: str, chapters: Sequence[Chapter], common: Sequence[Section]) -> str:
    """The sentences, tables and listings of the report as Markdown."""
    lines = [f"# {title}", ""]
    for section in common:
        lines += _markdown_section(section)
    for chapter in chapters:
        lines += [f"## {chapter.name}", "", *(f"{line}\n" for line in (chapter.description, *chapter.summary) if line)]
        for section in chapter.sections:
            lines += _markdown_section(section)
    return "\n".join(lines)


def _section(section: Section, attributes: str = "") -> str:
    parts = "\n".join(_part(part) for part in section.parts)
    return f"<section{attributes}>\n<h3>{escape(section.title)}</h3>\n{parts}\n</section>"


def _part(part: str | Table | Picture | Listing) -> str:
    if isinstance(part, Table):
        return _folded(part.title, _table(part), len(part.rows))
    if isinstance(part, Picture):
        svg = part.svg.replace("<svg", f'<svg role="img" aria-label="{escape(part.caption)}"', 1)
        caption = f"<figcaption>{escape(part.caption)}</figcaption>"
        return f'<figure id="{part.key}"><div class="scroll">{svg}</div>{caption}</figure>'
    if isinstance(part, Listing):
        listing = f"<pre><code>{escape(part.text)}</code></pre>"
        lines = part.text.count("\n") + 1
        return _folded(part.title, listing if lines > LONG else f"<p>{escape(part.title)}:</p>{listing}", lines)
    return f"<p>{escape(part)}</p>"


def _folded(title: str, html: str, length: int) -> str:
    return f"<details><summary>{escape(title)}</summary>{html}</details>" if length > LONG else html


def _table(table: Table) -> str:
    header = "".join(
        f"<th scope=col{'' if ' ' in cell else ' class=whole'}>{escape(cell)}</th>" for cell in table.header
    )
    rows = (
        f"<tr{' class=paper' if CITATION in row[0] else ''}>"
        f'<th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    title, body = escape(table.title), "\n".join(rows)
    return (
        f'<p class="title">{title}</p><div class="scroll"><table aria-label="{title}">'
        f"<thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _markdown_section(section: Section) -> list[str]:
    lines = [f"### {section.title}", ""]
    for part in section.parts:
        if isinstance(part, Table):
            lines.append(part.markdown())
        elif isinstance(part, Listing):
            fence = "`" * (3 + max(map(len, re.findall("`{3,}", part.text)), default=0))
            lines += [f"{part.title}:", "", fence, part.text.rstrip(), fence, ""]
        elif isinstance(part, str):
            lines += [part, ""]
    return lines if len(lines) > 2 else []
