"""The result of a study in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from tracegrad.lab.report.comparing import LEVEL, compare
from tracegrad.lab.report.quantities import ACCURACY, SPIKES
from tracegrad.lab.report.table import number
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.lab.studies.statistics import POWER, Difference


def summarize_in_words(study: RunsOfStudy) -> tuple[str, ...]:
    """A sentence for every method that is compared with the baseline; or one for every method, without a baseline.

    A difference is claimed where the p of its t test is below 5 % after Holm's correction over the comparisons of the
    study; else it is called "no difference shown". Then what so few seeds cannot show, and what diverged.
    """
    of_accuracy, of_spikes = compare(study, ACCURACY), compare(study, SPIKES)
    told = [_comparison(study, method, of_accuracy[method], of_spikes[method]) for method in of_accuracy]
    few = {found.pairs: found.smallest_p for found in of_accuracy.values() if found.pairs > 1}
    told += [
        f"{pairs} seeds cannot go below p = {p:g} in an exact test (sign flips): a claim rests on the t test, which "
        "takes differences between seeds for normal."
        for pairs, p in few.items()
        if p > LEVEL
    ]
    told = told or [_alone(method, study.of(method)) for method in study.recipe.methods]
    return (*told, *(_failed(study, method) for method in dict.fromkeys(run.name for run in study.diverged)))


def _comparison(study: RunsOfStudy, method: str, accuracy: Difference, spikes: Difference) -> str:
    baseline = study.recipe.baseline or ""
    ours, others = zip(*study.pairs(method, baseline), strict=True)
    if len(study.failures(method)) > len(study.failures(baseline)):
        accuracy = replace(accuracy, p=math.nan)
    return (
        f"Over {_seeds(ours)}, {method} reached {ACCURACY.mean(ours)}\u00a0% test accuracy and "
        f"{baseline} {ACCURACY.mean(others)}\u00a0%: {_change(accuracy, 'points', 'higher', 'lower')}; "
        f"spikes per image: {_change(spikes, 'K', 'more', 'fewer')}."
    )


def _alone(method: str, runs: list[FinishedRun]) -> str:
    return (
        f"Over {_seeds(runs)}, {method} reached {ACCURACY.mean(runs)}\u00a0% test accuracy with "
        f"{SPIKES.mean(runs)}\u00a0K spikes per image; nothing to compare it with."
    )


def _failed(study: RunsOfStudy, method: str) -> str:
    seeds, complete = study.failures(method), study.of(method)
    runs = f"{len(seeds)} of {len(seeds) + len(complete)} runs (seed {', '.join(map(str, seeds))})"
    others = ", and its numbers are those of the others alone" if complete else ""
    return f"{method} diverged in {runs}: these are failures{others}."


def _seeds(runs: Iterable[FinishedRun]) -> str:
    seeds = [run.run.seed for run in runs]
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"the single seed {seeds[0]}"


def _change(found: Difference, unit: str, more: str, less: str) -> str:
    mean = f"{_signed(found.mean)}\u00a0{unit}"
    if found.pairs == 1:
        return f"{mean}, no difference shown, as one pair of runs tells nothing about chance"
    told = f"{mean} (95\u00a0% interval {_signed(found.low)} to {_signed(found.high)})"
    if found.low <= 0 <= found.high:
        seen = f"{found.pairs} seeds see one of {number(found.smallest_seen)}\u00a0{unit} in {POWER:.0%} of studies"
        return f"{told}, no difference shown: with this spread, {seen}"
    if math.isnan(found.p):
        return f"{told}, nothing shown, as it diverged more often"
    if found.p >= LEVEL:
        return f"{told}, no difference shown: of several comparisons one such is chance (p = {found.p:.2g})"
    return f"{told}, {more if found.mean > 0 else less}"


def _signed(value: float) -> str:
    return number(value, sign=True).replace("-", "−")
