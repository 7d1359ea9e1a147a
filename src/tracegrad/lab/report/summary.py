"""The result of a study in plain words."""

from __future__ import annotations

import math

from tracegrad.lab.report.table import number
from tracegrad.lab.report.tables import Compared, accuracy, compare, spikes
from tracegrad.lab.studies.collect import RunsOfStudy
from tracegrad.lab.studies.statistics import CONFIDENCE, summarize

LEVEL = 1 - CONFIDENCE


def summarize_in_words(study: RunsOfStudy) -> tuple[str, ...]:
    """A sentence for every method that is compared with the baseline; or one for every method, without a baseline.

    A difference is claimed where the p of its t test is below 5 % after Holm's correction over the comparisons of the
    study; else it is called "no difference shown".
    """
    of_accuracy, of_spikes = compare(study, accuracy), compare(study, spikes)
    compared = [_comparison(study, method, of_accuracy[method], of_spikes[method]) for method in of_accuracy]
    few = {found.pairs: found.smallest_p for found, _ in of_accuracy.values() if found.pairs > 1}
    compared += [_limit(pairs, p) for pairs, p in few.items() if p > LEVEL]
    told = compared or [_alone(study, method) for method in study.recipe.methods]
    return (*told, *(_failed(study, method) for method in dict.fromkeys(run.name for run in study.diverged)))


def _failed(study: RunsOfStudy, method: str) -> str:
    seeds = study.failures(method)
    runs = f"{len(seeds)} of {len(seeds) + len(study.of(method))} runs (seed {', '.join(map(str, seeds))})"
    others = ", and its numbers are those of the others alone" if study.of(method) else ""
    return f"{method} diverged in {runs}: these are failures{others}."


def _limit(pairs: int, p: float) -> str:
    """What an exact test of so few seeds cannot show."""
    return (
        f"{pairs} seeds cannot go below p = {p:g} in an exact test (sign flips): a claim rests on the t test, "
        "which takes differences between seeds for normal."
    )


def _comparison(study: RunsOfStudy, method: str, of_accuracy: Compared, of_spikes: Compared) -> str:
    baseline = study.recipe.baseline or ""
    pairs = study.pairs(method, baseline)
    mean = [number(summarize([accuracy(pair[side]) for pair in pairs]).mean) for side in (0, 1)]
    over = f"{len(pairs)} seeds" if len(pairs) > 1 else f"the single seed {pairs[0][0].run.seed}"
    if len(study.failures(method)) > len(study.failures(baseline)):
        of_accuracy = of_accuracy[0], math.nan
    return (
        f"Over {over}, {method} reached {mean[0]}\u00a0% test accuracy and {baseline} {mean[1]}\u00a0%: "
        f"{_change(of_accuracy, 'points', 'higher', 'lower')}; "
        f"spikes per image: {_change(of_spikes, 'K', 'more', 'fewer')}."
    )


def _change(compared: Compared, unit: str, more: str, less: str) -> str:
    difference, p = compared
    mean = f"{_signed(difference.mean)}\u00a0{unit}"
    if difference.pairs == 1:
        return f"{mean}, no difference shown, as one pair of runs tells nothing about chance"
    interval = f"95\u00a0% interval {_signed(difference.low)} to {_signed(difference.high)}"
    if difference.low <= 0 <= difference.high:
        return f"{mean} ({interval}), no difference shown"
    if math.isnan(p):
        return f"{mean} ({interval}), nothing shown, as it diverged more often"
    if p >= LEVEL:
        return f"{mean} ({interval}), no difference shown: of several comparisons one such is chance (p = {p:.2g})"
    return f"{mean} ({interval}), {more if difference.mean > 0 else less}"


def _alone(study: RunsOfStudy, method: str) -> str:
    runs = study.of(method)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"the single seed {runs[0].run.seed}"
    means = [number(summarize([quantity(run) for run in runs]).mean) for quantity in (accuracy, spikes)]
    return (
        f"Over {seeds}, {method} reached {means[0]}\u00a0% test accuracy with {means[1]}\u00a0K spikes per image; "
        "nothing to compare it with."
    )


def _signed(value: float) -> str:
    return number(value, sign=True).replace("-", "−")
