"""The result of a study in plain words."""

from __future__ import annotations

from tracegrad.lab.report.collect import RunsOfStudy
from tracegrad.lab.report.tables import accuracy, difference, spikes
from tracegrad.lab.statistics import Difference, summarize
from tracegrad.lab.table import number


def summarize_in_words(study: RunsOfStudy) -> tuple[str, ...]:
    """A sentence for every method that is compared with the baseline; or one for every method, without a baseline.

    A difference whose 95 % interval holds zero is called "no difference shown".
    """
    compared: list[str] = []
    for method in study.recipe.methods:
        of_accuracy, of_spikes = difference(study, method, accuracy), difference(study, method, spikes)
        if method != study.recipe.baseline and of_accuracy and of_spikes:
            compared.append(_comparison(study, method, of_accuracy, of_spikes))
    return tuple(compared) or tuple(_alone(study, method) for method in study.recipe.methods)


def _comparison(study: RunsOfStudy, method: str, of_accuracy: Difference, of_spikes: Difference) -> str:
    baseline = study.recipe.baseline or ""
    pairs = study.pairs(method, baseline)
    mean = [number(summarize([accuracy(pair[side]) for pair in pairs]).mean) for side in (0, 1)]
    over = f"{len(pairs)} seeds" if len(pairs) > 1 else f"the single seed {pairs[0][0].run.seed}"
    return (
        f"Over {over}, {method} reached {mean[0]}\u00a0% test accuracy and {baseline} {mean[1]}\u00a0%: "
        f"{_change(of_accuracy, 'points', 'higher', 'lower')}; "
        f"spikes per image: {_change(of_spikes, 'K', 'more', 'fewer')}."
    )


def _change(difference: Difference, unit: str, more: str, less: str) -> str:
    mean = f"{_signed(difference.mean)}\u00a0{unit}"
    if difference.pairs == 1:
        return f"{mean}, no difference shown, as one pair of runs tells nothing about chance"
    interval = f"95\u00a0% interval {_signed(difference.low)} to {_signed(difference.high)}"
    if difference.low <= 0 <= difference.high:
        return f"{mean} ({interval}), no difference shown"
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
