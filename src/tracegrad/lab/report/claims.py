"""Which of a study's claims its runs support."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.tables import accuracy
from tracegrad.lab.studies.collect import RunsOfStudy
from tracegrad.lab.studies.statistics import (
    CONFIDENCE,
    all_of,
    equivalence,
    holm,
    non_inferiority,
    paired_difference,
)

Test = Callable[[Sequence[float], Sequence[float]], float]
"""Values and those that they are compared with, pair by pair -> p."""

Claim = tuple[str, Sequence[str], Test]
"""The method, those that it is compared with, and the test."""


def claims_table(study: RunsOfStudy) -> Table | None:
    """Each claim of the recipe with its p, and p with Holm's correction over the claims of its kind; None without any.

    A method that diverged more often than the one that it is compared with supports no claim.
    """
    baseline, claims = study.recipe.baseline, study.recipe.claims
    others = [method for method in study.recipe.methods if method != baseline] if baseline else []
    better: dict[str, Claim] = {
        f"{method} is better than {' and '.join(than)}": (method, than, _better)
        for method, than in claims.better.items()
    }
    no_worse: dict[str, Claim] = {}
    as_good: dict[str, Claim] = {}
    if claims.margin is not None:
        points, margin = f"less than {claims.margin:g} points", claims.margin
        worse, differ = partial(non_inferiority, margin=margin), partial(equivalence, margin=margin)
        no_worse = {
            f"{method} is {points} worse than {baseline}": (method, [str(baseline)], worse) for method in others
        }
        as_good = {
            f"{method} and {baseline} differ by {points}": (method, [str(baseline)], differ) for method in others
        }
    rows: list[tuple[str, ...]] = []
    for kind in (better, no_worse, as_good):
        ps = [all_of(*(_p(study, method, other, test) for other in than)) for method, than, test in kind.values()]
        for claim, p, corrected in zip(kind, ps, holm(ps), strict=True):
            verdict = "not tested" if math.isnan(p) else "supported" if corrected < 1 - CONFIDENCE else "not supported"
            rows.append((claim, number(p, 3), number(corrected, 3), verdict))
    if not rows:
        return None
    return Table(f"{study.name}: claims on test accuracy", ("Claim", "p", "p (Holm)", "The runs"), tuple(rows))


def _p(study: RunsOfStudy, method: str, other: str, test: Test) -> float:
    pairs = study.pairs(method, other)
    if len(study.failures(method)) > len(study.failures(other)):
        return 1.0
    if len(pairs) < 2:
        return math.nan
    return test([accuracy(run) for run, _ in pairs], [accuracy(run) for _, run in pairs])


def _better(values: Sequence[float], than: Sequence[float]) -> float:
    """The p of the two-sided t test where the difference is above 0, as the comparisons have it; else 1."""
    difference = paired_difference(values, than)
    return difference.p if difference.mean > 0 else 1.0
