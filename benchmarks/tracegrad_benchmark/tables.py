"""Results as tables for people, and as one CSV of plain numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tracegrad.lab.report.table import Table, number
from tracegrad_benchmark.intervals import Median, growth_exponent
from tracegrad_benchmark.results import TIMED, Results, Row

RATIOS = {
    "tracegrad": "time / tracegrad's, unscaled, bf16",
    "SpikingJelly": "time / SpikingJelly's, bf16",
    "convolutions": "time / the convolutions'",
}
AXES = {"time_steps": "T", "batch": "batch", "blocks": "blocks per stage", "width": "width"}
GIB = 2**30


def tables(results: Results) -> list[Table]:
    """All tables that the measured sections give."""
    timed = [_timed(section, results) for section in TIMED if section in results.sections]
    growth = results.sections.get("growth", {}).get("seconds")
    memory = results.sections.get("memory", {}).get("growth")
    found = [*timed]
    if growth:
        medians = {axis: {name: _medians(values) for name, values in one.items()} for axis, one in growth.items()}
        found.append(_growing("Seconds per training step as the work grows", "seconds", medians, 1))
    if joules := results.sections.get("energy", {}).get("joules"):
        rows = tuple((name, number(value, 2)) for name, value in joules.items())
        found.append(Table("Energy of a training step, idle consumption included", ("Competitor", "J"), rows))
    if memory:
        found.append(_growing("Peak memory above an idle process as the work grows", "GiB", memory, GIB))
    return found


def markdown(results: Results) -> str:
    """All tables, and below them what they were measured on."""
    machine, workload = results.facts["machine"], results.facts["workload"]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    processor = f"{machine['processor']} ({machine['instruction set']})"
    hardware = machine["gpu"] or f"{processor}, {machine['cores']} cores, {machine['threads']} threads"
    dates = sorted({section["date"] for section in results.sections.values()})
    lines = [
        f"Measured on {hardware} ({machine['system']}); {versions}; {', '.join(dates)}.",
        f"Network: {', '.join(map(str, workload['blocks']))} blocks, width {workload['width']}, "
        f"T = {workload['time_steps']}, images of {workload['image_size']} x {workload['image_size']}; "
        f"{_rate(workload)}.",
        "In every round each competitor runs once, in random order. Times are medians over rounds with their 95 % "
        "interval; ratios are medians of the ratios within a round, below 1 where the competitor is faster.",
    ]
    if results.facts["missing"]:
        lines.append(f"Not installed, so not measured: {', '.join(results.facts['missing'])}.")
    return "\n".join([*(table.markdown() for table in tables(results)), *(f"{line}\n" for line in lines)])


def _rate(workload: Mapping[str, Any]) -> str:
    rate = workload.get("rate")
    return "thresholds as they are" if rate is None else f"thresholds set for a mean firing rate of {rate:.1%}"


def as_csv(results: Results) -> str:
    """The timed sections as plain numbers: seconds, images per second, ratios and bytes, one competitor a row."""
    text = io.StringIO()
    ends = ("", " low", " high")
    numbers = [f"{name}{end}" for name in ("seconds", *(f"time / {title}" for title in RATIOS)) for end in ends]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["section", "competitor", "mean rate", "images per second", *numbers, "peak memory in bytes"])
    for section in TIMED:
        for row in results.rows(section):
            intervals = [row.seconds, *(row.ratios.get(title) for title in RATIOS)]
            cells = [cell for interval in intervals for cell in _numbers(interval)]
            memory = "" if row.memory is None else row.memory
            rate = f"{sum(row.rates) / len(row.rates):.4f}" if row.rates else ""
            writer.writerow([section, row.name, rate, f"{row.images_per_second:.6g}", *cells, memory])
    return text.getvalue()


def _timed(section: str, results: Results) -> Table:
    rows = results.rows(section)
    ratios = [title for title in RATIOS if any(title in row.ratios for row in rows)]
    with_memory = any(row.memory is not None for row in rows)
    header = ["Competitor", "mean rate (%)", "s", "images/s", *(RATIOS[title] for title in ratios)]
    cells = [_cells(row, ratios, with_memory) for row in rows]
    unit = ["peak memory above idle (GiB)"] if with_memory else []
    batch = results.sections[section]["batch"]
    title = f"{'Inference' if section == 'inference' else 'Training step'}, batch {batch}"
    return Table(title, (*header, *unit), tuple(cells))


def _cells(row: Row, ratios: Sequence[str], with_memory: bool) -> tuple[str, ...]:
    rate = 100 * sum(row.rates) / len(row.rates) if row.rates else math.nan
    cells = [row.name, number(rate, 1), _text(row.seconds, 3), number(row.images_per_second, 1)]
    cells += [_text(row.ratios[title], 2) if title in row.ratios else number(math.nan) for title in ratios]
    if with_memory:
        cells.append(number(math.nan if row.memory is None else row.memory / GIB))
    return tuple(cells)


def _text(interval: Median, digits: int) -> str:
    if math.isnan(interval.low):
        return number(interval.value, digits)
    return f"{number(interval.value, digits)} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def _numbers(interval: Median | None) -> list[str]:
    if interval is None:
        return ["", "", ""]
    ends = (interval.value, interval.low, interval.high)
    return ["" if math.isnan(each) else f"{each:.6g}" for each in ends]


def _medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {size: median(seconds) for size, seconds in values.items()}


def _growing(title: str, unit: str, measured: Mapping[str, Any], scale: float) -> Table:
    """Rows of competitor and axis, with the exponent p of value ~ size^p."""
    rows = tuple(
        (
            f"{name}: {AXES[axis]} = {', '.join(values)}",
            ", ".join(number(value / scale, 3) for value in values.values()),
            number(growth_exponent({int(size): value for size, value in values.items()})),
        )
        for axis, one in measured.items()
        for name, values in one.items()
    )
    return Table(title, ("Competitor and sizes", unit, "fitted p of size^p"), rows)
