"""The tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracegrad.lab.report.paper import CITATION, Reported, reported_for
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.lab.studies.statistics import Difference, Summary, crossed_bootstrap, holm, paired_difference, summarize
from tracegrad.measure.relations import STATISTICS


def accuracy(run: FinishedRun) -> float:
    """Test accuracy in per cent."""
    return 100 * run.result["test_accuracy"]


def spikes(run: FinishedRun) -> float:
    """Thousands of spikes per test image."""
    return run.result["spikes_per_image"] / 1e3


def difference(study: RunsOfStudy, method: str, quantity: Callable[[FinishedRun], float]) -> Difference | None:
    """The paired difference of a method to the baseline over the seeds that both have; None without any."""
    pairs = study.pairs(method, study.recipe.baseline) if study.recipe.baseline else []
    if not pairs:
        return None
    return paired_difference([quantity(run) for run, _ in pairs], [quantity(run) for _, run in pairs])


Compared = tuple[Difference, float]
"""A difference to the baseline, and the p of its t test with Holm's correction over the study's comparisons."""


def compare(study: RunsOfStudy, quantity: Callable[[FinishedRun], float]) -> dict[str, Compared]:
    """The difference of every method to the baseline, and its p of the t test with Holm's correction over them."""
    found = {
        method: each
        for method in study.recipe.methods
        if method != study.recipe.baseline and (each := difference(study, method, quantity))
    }
    return dict(zip(found, zip(found.values(), holm([each.p for each in found.values()]), strict=True), strict=True))


def results_table(study: RunsOfStudy) -> Table:
    """Accuracy and spikes of every method in the paper's form, the paper's own numbers below where it has any."""
    reset = study.recipe.model.reset or "–"
    rows = [
        (method, reset, *_summary(map(accuracy, study.of(method))), *_summary(map(spikes, study.of(method))))
        for method in study.recipe.methods
    ]
    rows += [
        (
            f"{name} ({CITATION})",
            reset,
            *_numbers(row.accuracy_mean, row.accuracy_max, None),
            *_numbers(row.spikes_mean, row.spikes_max, None),
        )
        for name, row in reported_for(study.recipe).items()
    ]
    title = f"{study.name}: test accuracy and spikes per image, seeds {', '.join(map(str, study.recipe.seeds))}"
    return with_failures(study, Table(title, ("Methods", "Reset", *_columns("%", ("mean", "max", "std"))), tuple(rows)))


def with_failures(study: RunsOfStudy, table: Table) -> Table:
    """A table of methods with a column that counts the runs that diverged, where any did."""
    if not study.diverged:
        return table
    lost = dict.fromkeys(run.name for run in study.diverged if not study.of(run.name))
    rows = [*table.rows, *((method, *["–"] * (len(table.header) - 1)) for method in lost)]
    known = {*study.recipe.methods, *lost}
    counted = (
        f"{len(study.failures(row[0]))} of {len(study.failures(row[0])) + len(study.of(row[0]))}"
        if row[0] in known
        else "–"
        for row in rows
    )
    return Table(
        table.title, (*table.header, "Diverged"), tuple((*row, each) for row, each in zip(rows, counted, strict=True))
    )


def differences_table(study: RunsOfStudy) -> Table | None:
    """Paired differences to the baseline with their 95 % intervals; None where there is no pair."""
    baseline, compared = study.recipe.baseline, compare(study, accuracy)
    of_spikes = compare(study, spikes)
    rows = [
        (
            f"{method} - {baseline}",
            *_interval(found),
            *_interval(of_spikes[method][0]),
            number(p, 3),
            number(found.p_flips, 3),
        )
        for method, (found, p) in compared.items()
    ]
    if not rows:
        return None
    rows += _reported_difference(reported_for(study.recipe))
    title = f"{study.name}: mean paired differences and their 95 % intervals"
    ps = ("Accuracy: p (t test, Holm)", "Accuracy: p (sign flips)")
    return Table(title, ("Difference", *_columns("points", ("mean", "low", "high")), *ps), tuple(rows))


def images_table(study: RunsOfStudy) -> Table | None:
    """Differences in accuracy with the chance of both seeds and test images; None where they are not recorded."""
    rows: list[tuple[str, ...]] = []
    for method in compare(study, accuracy):
        pairs = [pair for pair in study.pairs(method, study.recipe.baseline or "") if all(run.test for run in pair)]
        if len(pairs) < 2:
            continue
        right = [np.stack([_right(pair[side]) for pair in pairs]) for side in (0, 1)]
        ends = (number(100 * end, sign=True) for end in crossed_bootstrap(right[0], right[1]))
        mean = number(100 * float(right[0].mean() - right[1].mean()), sign=True)
        rows.append((f"{method} - {study.recipe.baseline}", mean, *ends))
    if not rows:
        return None
    title = f"{study.name}: differences over seeds and test images, crossed bootstrap, 95 % intervals"
    return Table(title, ("Difference", *(f"Accuracy (points) {name}" for name in ("mean", "low", "high"))), tuple(rows))


def _right(run: FinishedRun) -> NDArray[Any]:
    return run.test["predicted"] == run.test["labels"]


def rates_table(study: RunsOfStudy) -> Table | None:
    """Mean firing rate of every layer for every method; None where the number of neurons is not recorded."""
    rates = {method: firing_rates(study.of(method)) for method in study.recipe.methods}
    rates = {method: layers for method, layers in rates.items() if layers}
    if not rates:
        return None
    layers = dict.fromkeys(layer for of_method in rates.values() for layer in of_method)
    rows = [
        (layer, *(number(fmean(of[layer]), 3) if layer in of else "–" for of in rates.values())) for layer in layers
    ]
    title = f"{study.name}: firing rate, spikes per neuron and time step, mean over the seeds"
    return Table(title, ("Layer", *rates), tuple(rows))


def firing_rates(runs: Sequence[FinishedRun]) -> dict[str, list[float]]:
    """Spikes per neuron and time step on the test images: a value per run for each layer that was counted."""
    rates: dict[str, list[float]] = {}
    for run in runs:
        neurons = run.result.get("neurons_per_layer", {})
        for layer, count in run.result["spikes_per_layer"].items():
            if layer in neurons:
                per_step = neurons[layer] * run.run.setting.model.time_steps
                rates.setdefault(layer, []).append(count / per_step)
    return rates


def relations_table(study: RunsOfStudy) -> Table | None:
    """R_hat and the scale of every synapse after the last epoch, mean over the seeds; None where nobody measured."""
    rows: list[tuple[str, ...]] = []
    for method in study.recipe.methods:
        runs = [run for run in study.of(method) if run.relations]
        for quantity, symbol in (("relation", "R_hat"), ("scale", "scale")):
            for synapse, statistics in last_relations(runs, quantity).items():
                rows.append((method, synapse, symbol, *(number(statistics[name], 3) for name in STATISTICS)))
    if not rows:
        return None
    quantiles = (f"{int(name[1:])} %" for name in STATISTICS if name != "mean")
    title = f"{study.name}: relation and scale after the last epoch, mean over the seeds"
    return Table(title, ("Method", "Synapse", "Quantity", "mean", *quantiles), tuple(rows))


def last_relations(runs: Sequence[FinishedRun], quantity: str) -> dict[str, dict[str, float]]:
    """Statistics of a quantity of relations.csv at its last epoch, by synapse, as means over runs."""
    values: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        last = max(row["epoch"] for row in run.relations)
        for row in run.relations:
            if row["quantity"] == quantity and row["epoch"] == last:
                values.setdefault(row["synapse"], []).append(row)
    return {
        synapse: {name: fmean(row[name] for row in rows) for name in STATISTICS} for synapse, rows in values.items()
    }


def methods_table(study: RunsOfStudy) -> Table:
    """What sets the methods apart: the options that are not the same in all."""
    options = {name: asdict(method) for name, method in study.recipe.methods.items()}
    first = next(iter(options.values()))
    differing = [field for field in first if len({str(values[field]) for values in options.values()}) > 1]
    rows = [(field, *(str(values[field]) for values in options.values())) for field in differing or first]
    return Table(f"{study.name}: options of the methods", ("Option", *options), tuple(rows))


def _columns(unit: str, statistics: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name} {each}" for name in (f"Accuracy ({unit})", "# spikes (K)") for each in statistics)


def _summary(values: Any) -> tuple[str, ...]:
    summary: Summary = summarize(list(values))
    return _numbers(summary.mean, summary.maximum, summary.deviation)


def _numbers(*values: float | None) -> tuple[str, ...]:
    return tuple("–" if value is None else number(value) for value in values)


def _interval(difference: Difference) -> tuple[str, ...]:
    return tuple(number(value, sign=True) for value in (difference.mean, difference.low, difference.high))


def _reported_difference(reported: dict[str, Reported]) -> list[tuple[str, ...]]:
    if len(reported) < 2:
        return []
    ours, base = reported["gradient-scale"], reported["baseline"]
    means = [(ours.accuracy_mean, base.accuracy_mean), (ours.spikes_mean, base.spikes_mean)]
    cells = [number(value - other, sign=True) for value, other in means if value is not None and other is not None]
    return [(f"gradient-scale - baseline ({CITATION})", cells[0], "–", "–", cells[1], "–", "–", "–", "–")]


def recipes_table(studies: Sequence[RunsOfStudy]) -> Table | None:
    """What sets studies apart: the fields of their recipes that are not the same in all; None if there are none."""
    fields = [_fields({**asdict(study.recipe), "methods": None, "seeds": None}) for study in studies]
    names = dict.fromkeys(name for each in fields for name in each)
    rows = [
        (name, *(str(each.get(name, "–")) for each in fields))
        for name in names
        if name not in ("name", "description") and len({str(each.get(name)) for each in fields}) > 1
    ]
    if not rows:
        return None
    return Table("Fields of the recipes that differ", ("Field", *(study.name for study in studies)), tuple(rows))


def _fields(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Values of nested dicts by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _fields(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return flat


def environment_table(study: RunsOfStudy) -> Table:
    """Versions and machine of the runs; where runs differ, all of them."""
    values: dict[str, dict[str, None]] = {}
    for run in study.runs.values():
        for group in ("versions", "machine", "code_digests"):
            for name, value in run.result.get(group, {}).items():
                shown = "none" if value is None else str(value)
                values.setdefault(name, {})[f"SHA-256 {shown[:16]}" if group == "code_digests" else shown] = None
    seconds = sum(run.result.get("seconds", 0.0) for run in study.runs.values())
    rows = [(name, ", ".join(each)) for name, each in values.items()]
    rows += [("hours of training", number(seconds / 3600))]
    return Table(f"{study.name}: versions and machine", ("Environment", "Value"), tuple(rows))
