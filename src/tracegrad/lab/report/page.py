"""A report's Markdown as one HTML page that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tracegrad.lab.report.paper import CITATION

# Should anything in the page ask for something outside of it, the browser refuses.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<section>
{body}</section>
</main>
</body>
</html>
"""


def to_html(title: str, markdown: str, figures: Mapping[str, str]) -> str:
    """The page: a section per heading with links to all of them, tables that scroll, figures in their place.

    Args:
        title: of the page.
        markdown: what it says; raw HTML in it is shown as text.
        figures: SVG elements by the name under which an image stands in the Markdown, alone in its paragraph.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens, links = reader.parse(markdown), list[str]()
    page, first = list[Token](), 0
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
            token.attrs |= {"scope": "col", "class": "words" if " " in inside else "word"} if token.type == "th_open" else {}
        elif token.type == "paragraph_open" and (image := _image(tokens[index + 1])):
            key = unquote(str(image.attrs["src"]))
            token.tag = tokens[index + 2].tag = "figure"
            token.attrs["id"] = key
            tokens[index + 1] = _figure(figures[key], _text(image))
        page.append(token)
        if token.type == "table_close":
            page.append(_block("</div>\n"))
    page.insert(first or len(page), _block(f"<nav>{''.join(links)}</nav>\n"))
    style = (files("tracegrad.lab.report") / "style.css").read_text(encoding="utf-8")
    body = reader.renderer.render(page, reader.options, {})
    return PAGE.format(policy=POLICY, title=escape(title), style=style, body=body)


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
