"""How many seeds a study needs, from the runs that it has."""

from __future__ import annotations

from pathlib import Path

from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.tables import accuracy
from tracegrad.lab.studies.collect import RunsOfStudy, collect
from tracegrad.lab.studies.statistics import POWER, seeds_needed, summarize, upper_deviation


def planning_table(folder: Path, points: float) -> Table:
    """For every method, the seeds with which its study sees a difference to the baseline with a probability of 80 %.

    The spread is the limit under which the true one lies with a probability of 80 %, given the pairs so far.

    Args:
        folder: of a study with complete runs of two seeds at least.
        points: the difference in test accuracy to see.

    Raises:
        ValueError: too few complete runs, no difference, or damaged files.
    """
    rows: list[tuple[str, ...]] = []
    for study in collect([folder]):
        compared = [method for method in study.recipe.methods if len(_differences(study, method)) > 1]
        for method in compared:
            differences = _differences(study, method)
            spread = summarize(differences).deviation
            limit = upper_deviation(spread, len(differences))
            seeds = seeds_needed(limit, points, len(compared))
            shown = "over 10,000" if seeds is None else str(seeds)
            rows.append((method, str(len(differences)), number(spread), number(limit), shown))
    if not rows:
        raise ValueError(f"{folder} has no method with two complete pairs of runs; train two or more seeds first")
    title = f"Seeds to see {points:g} points of test accuracy with a probability of {POWER:.0%}"
    spreads = ("Spread of the differences (points)", "Upper 80 % limit (points)")
    return Table(title, ("Method", "Seeds so far", *spreads, "Seeds needed"), tuple(rows))


def _differences(study: RunsOfStudy, method: str) -> list[float]:
    baseline = study.recipe.baseline
    pairs = study.pairs(method, baseline) if baseline and method != baseline else []
    return [accuracy(run) - accuracy(other) for run, other in pairs]
