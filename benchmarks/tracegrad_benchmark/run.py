"""Measures the sections of a benchmark and writes their results, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tracegrad.lab.files import write
from tracegrad.lab.report.table import Table
from tracegrad.lab.runs.isolation import quiet
from tracegrad_benchmark.competitors import chosen, missing
from tracegrad_benchmark.figures import figures
from tracegrad_benchmark.machine import machine
from tracegrad_benchmark.progress import SectionProgress
from tracegrad_benchmark.results import Results
from tracegrad_benchmark.sections import SECTIONS, Benchmark, measurable
from tracegrad_benchmark.tables import as_csv, markdown, tables
from tracegrad_benchmark.workload import Workload


def run_benchmark(
    workload: Workload,
    sections: Sequence[str] | None,
    patterns: Sequence[str] | None,
    rounds: int,
    output: Path,
    console: Console,
) -> list[Table]:
    """Measures sections one after the other; after each of them everything in the folder is up to date.

    Sections that the folder holds already are kept: to go on with an interrupted benchmark, start it again.

    Args:
        workload: the network and the batch.
        sections: names in `SECTIONS`; None for all that this machine can measure.
        patterns: of the names of those that are measured, such as "SpikingJelly*"; None for all.
        rounds: in how many rounds every competitor is timed.
        output: folder of results.json, table.md, table.csv, and the figures as SVG and PNG.
        console: where progress is shown.

    Returns:
        The tables of all sections that are measured by now.

    Raises:
        ValueError: no rounds; an unknown section; a pattern that no name fits; results of another machine, workload or
            number of rounds in the folder.
        OSError: the folder cannot be written to.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    absent = missing()
    for package in absent:
        console.print(f"{package} is not installed and left out", soft_wrap=True, highlight=False)
    benchmark = Benchmark(chosen(patterns), workload, rounds)
    described = {each.name: {"library": each.library, "precision": each.precision} for each in benchmark.competitors}
    facts = {"machine": machine(workload.device), "workload": asdict(workload), "rounds": rounds, "missing": absent}
    results = Results(output, facts | {"competitors": described})
    for section in sections or measurable(workload.device):
        if section in results.sections:
            console.print(f"{section}: measured already", soft_wrap=True, highlight=False)
            continue
        with quiet(), SectionProgress(console, section) as progress:
            measured = SECTIONS[section](benchmark, progress)
        results.add(section, measured)
        write(output / "table.md", markdown(results))
        write(output / "table.csv", as_csv(results))
        for name, content in figures(results).items():
            write(output / name, content)
    return tables(results)
