import csv
import io
import math

import pytest
from rich.console import Console

from tracegrad.lab.report.table import Table, number

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
