import csv
import io
import math
import re
from html import unescape

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from tracegrad.lab.report.table import Table, escape, number, paragraph

TABLE = Table("Title", ("Methods", "mean (%)"), (("baseline", "1.00"), ("a, b", "–")))


def test_markdown():
    assert TABLE.markdown() == (
        "**Title**\n\n| Methods | mean (%) |\n| --- | ---: |\n| baseline | 1.00 |\n| a, b | – |\n"
    )


def test_csv_reads_back():
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [list(TABLE.header), *map(list, TABLE.rows)]


def test_terminal_shows_every_cell_at_80_columns():
    header = ("Methods", "Reset", *(f"Accuracy (%) {index}" for index in range(6)))
    table = Table("Title", header, (("gradient-scale", "soft", *(["98.75"] * 6)),))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table.rich())
    text = console.export_text()
    assert "gradient-scale" in text
    assert text.count("98.75") == 6
    assert "…" not in text


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (1.005, False, "1.00"),
        (2.0, True, "+2.00"),
        (-2.0, True, "-2.00"),
        (-1e-9, True, "+0.00"),
        (math.nan, True, "–"),
    ],
)
def test_numbers(value, sign, text):
    assert number(value, sign=sign) == text


TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Cf")) | st.just(" "), min_size=1)
SIGNS = st.text("\\`*_{}[]()<>#+-.!|~&$;=: \n1ax", min_size=1)


def shown(markdown, tag):
    """What a reader of a Markdown text sees in its elements of one kind."""
    html = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).render(markdown)
    return [unescape(text) for text in re.findall(rf"<{tag}(?: style[^>]*)?>(.*?)</{tag}>", html, re.DOTALL)]


@settings(max_examples=300, deadline=None)
@given(TEXT | SIGNS)
def test_markdown_shows_any_text_as_it_is(text):
    text = " ".join(text.split())
    assume(text)
    assert shown(paragraph(text), "p") == [text]
    assert shown(f"## {escape(text)}", "h2") == [text]
    assert shown(f"> {paragraph(text)}", "p") == [text]
    table = Table("Title", ("a", text), ((text, "1"),)).markdown()
    assert shown(table, "td") == [text, "1"]
    assert shown(table, "th") == ["a", text]
