"""A report as Markdown, and that as one HTML page that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tracegrad.lab.report import table
from tracegrad.lab.report.paper import CITATION
from tracegrad.lab.report.style import Figures, to_element
from tracegrad.lab.report.table import Table

Block = str | Table | Figures | None
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
            text += [image.format(table.escape(caption), name) for name, (caption, _) in block.items()]
        else:
            text.append(block if isinstance(block, str) else block.markdown().rstrip())
    return "\n\n".join(text) + "\n"


def to_html(title: str, blocks: Iterable[Block]) -> str:
    """A report as a page: a section per heading, links to all of them, tables that scroll, figures in their place.

    Args:
        title: of the page.
        blocks: what it consists of; raw HTML in it is shown as text.
    """
    figures = {name: figure for block in blocks if isinstance(block, dict) for name, (_, figure) in block.items()}
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(to_markdown(blocks, "![{0}](<{1}>)"))
    page, links, first = list[Token](), list[str](), 0
    for index, token in enumerate(tokens):
        inside = _text(tokens[index + 1]) if index + 1 < len(tokens) else ""
        if token.type == "heading_open" and token.tag != "h1":
            first = first or len(page)
            links.append(f'<a class="{token.tag}" href="#{index}">{escape(inside)}</a>')
            page.append(_block(f'</section>\n<section id="{index}">\n'))
        elif token.type == "table_open":  # its title is the paragraph before it
            label = escape(_text(tokens[index - 2]))
            page.append(_block(f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n'))
        elif token.type == "tr_open" and tokens[index + 1].type == "td_open":
            tokens[index + 1].tag = tokens[index + 3].tag = "th"
            tokens[index + 1].attrs["scope"] = "row"
            token.attrs["class"] = "paper" if CITATION in _text(tokens[index + 2]) else "ours"
        elif token.type in ("th_open", "td_open"):
            token.attrs.pop("style", None)  # the page aligns cells by itself
            token.attrs |= (
                {"scope": "col", "class": "words" if " " in inside else "word"} if token.type == "th_open" else {}
            )
        elif token.type == "paragraph_open" and (image := _image(tokens[index + 1])):
            key = unquote(str(image.attrs["src"]))
            token.tag = tokens[index + 2].tag = "figure"
            token.attrs["id"] = key
            tokens[index + 1] = _figure(to_element(figures[key], key), _text(image))
        page.append(token)
        if token.type == "table_close":
            page.append(_block("</div>\n"))
    page.insert(first or len(page), _block(f"<nav>{''.join(links)}</nav>\n"))
    template = Template((files("tracegrad.lab.report") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=reader.renderer.render(page, reader.options, {}))


def _block(html: str) -> Token:
    return Token("html_block", "", 0, content=html)


def _text(token: Token) -> str:
    return "".join(child.content for child in token.children or ())


def _image(token: Token) -> Token | None:
    children = token.children or []
    return children[0] if len(children) == 1 and children[0].type == "image" else None


def _figure(svg: str, caption: str) -> Token:
    caption = escape(caption)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return _block(f'<div class="wide">{svg}</div><figcaption>{caption}</figcaption>')
