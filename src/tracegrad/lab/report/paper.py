"""The results that Park et al. (2023) report, to stand beside ours."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import Method

CITATION = "Park et al. 2023"
COLUMNS: dict[str, Callable[[str], Any]] = {
    "table": int,
    **dict.fromkeys(("dataset", "architecture", "method", "reset"), str),
    **dict.fromkeys(("accuracy_mean", "accuracy_max", "spikes_mean_k", "spikes_max_k"), float),
}


@dataclass(frozen=True)
class Reported:
    """One row of the paper's tables; NaN where the paper gives no number.

    Args:
        table: number of the table: 1 is CIFAR-10, 2 CIFAR-100, 3 the comparison with other work.
        dataset: cifar10 or cifar100.
        architecture: of the network.
        method: baseline, gradient-scale, or another paper's.
        reset: soft or hard.
        accuracy_mean: in per cent, over four trainings.
        accuracy_max: the best of them.
        spikes_mean: thousands per image.
        spikes_max: the most of them.
    """

    table: int
    dataset: str
    architecture: str
    method: str
    reset: str
    accuracy_mean: float
    accuracy_max: float
    spikes_mean: float
    spikes_max: float


@cache
def reported_results() -> tuple[Reported, ...]:
    """All rows of the paper's Tables 1 to 3."""
    text = (files("tracegrad.lab.report") / "paper_tables.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(Reported(*(kind(row[name] or "nan") for name, kind in COLUMNS.items())) for row in rows)


def reported_for(recipe: Recipe) -> dict[str, Reported]:
    """What the paper reports for the data set, network and reset of a recipe, by the paper's name of the method.

    Returns:
        "baseline" and "gradient-scale", where a method of the recipe is one of them; empty for an experiment that is
        not in the paper.
    """
    setting = (recipe.data.name, recipe.model.name, recipe.model.reset)
    names = {_paper_name(method) for method in recipe.methods.values()}
    return {
        row.method: row
        for row in reported_results()
        if row.table in (1, 2) and (row.dataset, row.architecture, row.reset) == setting and row.method in names
    }


def _paper_name(method: Method) -> str | None:
    plain = method.kind == "direct" and not method.changes
    return {0.0: "baseline", 0.1: "gradient-scale"}.get(method.alpha) if plain else None
