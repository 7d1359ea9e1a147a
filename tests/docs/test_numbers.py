"""The numbers in the documentation are those of the files that they are taken from."""

import csv
import re
from pathlib import Path

import pytest

from tracegrad.lab.paper import reported_results

ROOT = Path(__file__).parents[2]
REPRODUCE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")


def test_the_papers_tables_are_the_papers():
    rows = {(row.table, row.architecture, row.reset, row.method): row for row in reported_results()}
    shown = re.split(r"^\| Table (\d)", REPRODUCE, flags=re.MULTILINE)
    checked = 0
    for table, text in zip(shown[1::2], shown[2::2], strict=True):
        for network, reset, *numbers in re.findall(
            r"^\| (ResNet\d+), (\w+) \|" + r" ([\d.]+) \|" * 4, text, re.MULTILINE
        ):
            pair = [rows[int(table), network.lower(), reset, method] for method in ("baseline", "gradient-scale")]
            expected = [row.accuracy_mean for row in pair] + [row.spikes_mean for row in pair]
            assert [float(number) for number in numbers] == expected, f"Table {table}, {network}, {reset}"
            checked += 1
    assert checked == 8


@pytest.mark.parametrize("study", ["digits", "fashion-mnist"])
def test_differences_are_those_of_results(study):
    with (ROOT / "results" / study / "differences.csv").open(encoding="utf-8") as file:
        _, *expected = next(csv.DictReader(file)).values()
    line = next(line for line in REPRODUCE.splitlines() if line.startswith(f"| `{study}`"))
    shown = [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+\.\d\d", line)]
    assert shown[:6] == [float(value) for value in expected], f"docs/reproduce.md and results/{study} differ"
