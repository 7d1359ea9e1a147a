"""Methods against the baseline: differences, claims, the result in plain words, and the seeds that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tracegrad.lab.report.paper import CITATION, reported_for
from tracegrad.lab.report.quantities import ACCURACY, SPIKES, Quantity
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy, collect
from tracegrad.lab.studies.statistics import (
    CONFIDENCE,
    POWER,
    Difference,
    crossed_bootstrap,
    equivalence,
    holm,
    non_inferiority,
    paired_difference,
    seeds_needed,
    upper_deviation,
)

LEVEL = 1 - CONFIDENCE
ENDS = ("mean", "low", "high")

Test = Callable[[Sequence[float], Sequence[float]], float]
"""Values and those that they are compared with, pair by pair -> p."""
Pairs = Sequence[tuple[FinishedRun, FinishedRun]]
"""Runs of a method, each with the one that it is compared with."""


def difference(pairs: Pairs, quantity: Quantity) -> Difference:
    """What a method makes of a quantity, over its pairs."""
    return paired_difference([quantity(run) for run, _ in pairs], [quantity(run) for _, run in pairs])


def difference_over_images(pairs: Pairs) -> tuple[float, float, float]:
    """The difference in accuracy in points, and the ends of its interval over seeds and test images."""
    right, base = (
        np.stack([run.test["predicted"] == run.test["labels"] for run in side]) for side in zip(*pairs, strict=True)
    )
    low, high = crossed_bootstrap(right, base)
    return 100 * float(right.mean() - base.mean()), 100 * low, 100 * high


def compare(study: RunsOfStudy, quantity: Quantity) -> dict[str, Difference]:
    """The difference of every method to the baseline over the seeds that both have.

    Its p is that of the t test with Holm's correction over the study's comparisons.
    """
    found = {method: difference(pairs, quantity) for method, pairs in study.against_baseline().items()}
    ps = holm([each.p for each in found.values()])
    return {method: replace(each, p=p) for (method, each), p in zip(found.items(), ps, strict=True)}


def differences_table(study: RunsOfStudy) -> Table:
    """Paired differences to the baseline with their 95 % intervals; no rows where there is no pair."""
    baseline, of_spikes = study.recipe.baseline, compare(study, SPIKES)
    rows: list[tuple[str, ...]] = []
    for method, found in compare(study, ACCURACY).items():
        ps = number(found.p, 3), number(found.p_flips, 3)
        rows.append((f"{method} - {baseline}", *_interval(found), *_interval(of_spikes[method]), *ps))
    reported = reported_for(study.recipe)
    if rows and len(reported) == 2:
        ours, base = reported["gradient-scale"], reported["baseline"]
        means = ours.accuracy_mean - base.accuracy_mean, ours.spikes_mean - base.spikes_mean
        cells = [cell for mean in means for cell in (number(mean, sign=True), "–", "–")]
        rows.append((f"gradient-scale - baseline ({CITATION})", *cells, "–", "–"))
    title = f"{study.name}: mean paired differences and their 95 % intervals"
    columns = [f"{name} {each}" for name in ("Accuracy (points)", "# spikes (K)") for each in ENDS]
    ps = ("Accuracy: p (t test, Holm)", "Accuracy: p (sign flips)")
    return Table(title, ("Difference", *columns, *ps), tuple(rows))


def _interval(found: Difference) -> tuple[str, ...]:
    return tuple(number(value, sign=True) for value in (found.mean, found.low, found.high))


def images_table(study: RunsOfStudy) -> Table:
    """Differences in accuracy with the chance of both seeds and test images; no rows where they are not recorded."""
    rows: list[tuple[str, ...]] = []
    for method, pairs in study.against_baseline().items():
        recorded = [pair for pair in pairs if all(run.test for run in pair)]
        if len(recorded) > 1:
            cells = (number(points, sign=True) for points in difference_over_images(recorded))
            rows.append((f"{method} - {study.recipe.baseline}", *cells))
    title = f"{study.name}: differences over seeds and test images, crossed bootstrap, 95 % intervals"
    return Table(title, ("Difference", *(f"Accuracy (points) {name}" for name in ENDS)), tuple(rows))


def claims_table(study: RunsOfStudy) -> Table:
    """Each claim of the recipe with its p, and p with Holm's correction over the claims of its kind; may be empty.

    A method that diverged more often than the one that it is compared with supports no claim. Better than several is
    better than each of them: the largest p counts (R. L. Berger, Technometrics 24 (1982) 295-300).
    """
    baseline, claims = study.recipe.baseline, study.recipe.claims
    better = {
        f"{method} is better than {' and '.join(than)}": [_p(study, method, other, _better) for other in than]
        for method, than in claims.better.items()
    }
    kinds = [{claim: float(np.max(ps)) for claim, ps in better.items()}]
    if claims.margin is not None and baseline:
        for words, test in (
            ("{} is less than {:g} points worse than {}", non_inferiority),
            ("{0} and {2} differ by less than {1:g} points", equivalence),
        ):
            within = partial(test, margin=claims.margin)
            others = [method for method in study.recipe.methods if method != baseline]
            kinds.append(
                {words.format(each, claims.margin, baseline): _p(study, each, baseline, within) for each in others}
            )
    rows: list[tuple[str, ...]] = []
    for kind in kinds:
        for (claim, p), corrected in zip(kind.items(), holm(list(kind.values())), strict=True):
            verdict = "not tested" if math.isnan(p) else "supported" if corrected < LEVEL else "not supported"
            rows.append((claim, number(p, 3), number(corrected, 3), verdict))
    title = f"{study.name}: claims on test accuracy"
    return Table(title, ("Claim", "p", "p (Holm)", "The runs"), tuple(rows))


def _p(study: RunsOfStudy, method: str, other: str, test: Test) -> float:
    pairs = study.pairs(method, other)
    if len(study.failures(method)) > len(study.failures(other)):
        return 1.0
    if len(pairs) < 2:
        return math.nan
    return test([ACCURACY(run) for run, _ in pairs], [ACCURACY(run) for _, run in pairs])


def _better(values: Sequence[float], than: Sequence[float]) -> float:
    """The p of the two-sided t test where the difference is above 0, as the comparisons have it; else 1."""
    found = paired_difference(values, than)
    return found.p if found.mean > 0 else 1.0


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
        compared = {method: pairs for method, pairs in study.against_baseline().items() if len(pairs) > 1}
        for method, pairs in compared.items():
            spread = difference(pairs, ACCURACY).deviation
            limit = upper_deviation(spread, len(pairs))
            seeds = seeds_needed(limit, points, len(compared))
            shown = "over 10,000" if seeds is None else str(seeds)
            rows.append((method, str(len(pairs)), number(spread), number(limit), shown))
    if not rows:
        raise ValueError(f"{folder} has no method with two complete pairs of runs; train two or more seeds first")
    title = f"Seeds to see {points:g} points of test accuracy with a probability of {POWER:.0%}"
    spreads = ("Spread of the differences (points)", "Upper 80 % limit (points)")
    return Table(title, ("Method", "Seeds so far", *spreads, "Seeds needed"), tuple(rows))
