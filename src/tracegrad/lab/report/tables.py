"""The tables of a study, and of what sets studies apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.report.paper import CITATION, Reported, reported_for
from tracegrad.lab.report.quantities import ACCURACY, SPIKES, Quantity, firing_rates, relations_by_epoch
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import RunsOfStudy
from tracegrad.lab.studies.statistics import summarize
from tracegrad.measure.relations import STATISTICS

COSTS = (
    Quantity("Source (%)", "source_accuracy", 100),
    Quantity("Spikes (K)", "spikes_per_image", 1e-3),
    Quantity("Accumulates (M)", "accumulates_per_image", 1e-6),
    Quantity("Multiplications (M)", "multiply_accumulates_per_image", 1e-6),
    Quantity("Energy (µJ)", "energy_per_image_uj"),
    Quantity("Parameters (K)", "parameters", 1e-3, 1),
    Quantity("Memory (MB)", "peak_memory_mb", 1.0, 0),
    Quantity("s/epoch", "seconds", 1.0, 1, per="epochs"),
)
"""What a method started from, and what it costs."""


def is_comparison(recipe: Recipe) -> bool:
    """Whether methods differ in more than the scaling of their gradients."""
    return any(method.kind != "direct" or method.changes for method in recipe.methods.values())


def study_table(study: RunsOfStudy) -> Table:
    """The results of a study: in the paper's form where methods differ in their scaling alone, else with all costs.

    Runs that diverged are counted in a column of their own, where there are any.
    """
    table = _comparison(study) if is_comparison(study.recipe) else paper_table(study)
    if not study.diverged:
        return table
    lost = dict.fromkeys(run.name for run in study.diverged if not study.of(run.name))
    rows = [*table.rows, *((method, *["–"] * (len(table.header) - 1)) for method in lost)]
    return Table(table.title, (*table.header, "Diverged"), tuple((*row, _diverged(study, row[0])) for row in rows))


def _diverged(study: RunsOfStudy, method: str) -> str:
    failed = len(study.failures(method))
    runs = failed + len(study.of(method))
    return f"{failed} of {runs}" if runs else "–"


def paper_table(study: RunsOfStudy) -> Table:
    """Accuracy and spikes of each method in the form of the paper's tables, then what the paper reports."""
    reset = study.recipe.model.reset or "–"
    rows: list[tuple[str, ...]] = []
    for method in study.recipe.methods:
        found = [summarize(list(map(quantity, study.of(method)))) for quantity in (ACCURACY, SPIKES)]
        rows.append((method, reset, *(number(value) for each in found for value in asdict(each).values())))
    rows += [reported_row(row, CITATION) for row in reported_for(study.recipe).values()]
    columns = (f"{name} {each}" for name in ("Accuracy (%)", "# spikes (K)") for each in ("mean", "max", "std"))
    title = f"{study.name}: test accuracy and spikes per image, {_seeds(study)}"
    return Table(title, ("Methods", "Reset", *columns), tuple(rows))


def reported_row(row: Reported, source: str) -> tuple[str, ...]:
    """What is reported of a method, as a row of `paper_table`; no standard deviations are."""
    values = row.accuracy_mean, row.accuracy_max, math.nan, row.spikes_mean, row.spikes_max, math.nan
    return (f"{row.method} ({source})", row.reset, *map(number, values))


def _comparison(study: RunsOfStudy) -> Table:
    rows: list[tuple[str, ...]] = []
    for method in study.recipe.methods:
        runs = study.of(method)
        found = summarize(list(map(ACCURACY, runs)))
        accuracies = map(number, (found.mean, found.deviation, found.maximum))
        rows.append((method, str(runs[0].result["time_steps"]), *accuracies, *(cost.mean(runs) for cost in COSTS)))
    data = study.recipe.data
    images = f"{data.name}, {'all' if data.train_size is None else f'{data.train_size:,}'} training images"
    title = f"{study.name}: test accuracy and costs per image, {_seeds(study)}; {images}"
    header = ("Method", "T", "Accuracy (%) mean", "± std", "max", *(cost.label for cost in COSTS))
    return Table(title, header, tuple(rows))


def _seeds(study: RunsOfStudy) -> str:
    return f"seeds {', '.join(map(str, study.recipe.seeds))}"


def rates_table(study: RunsOfStudy) -> Table:
    """Mean firing rate of every layer for every method; no rows where the number of neurons is not recorded."""
    rates = firing_rates(study)
    layers = dict.fromkeys(layer for of_method in rates.values() for layer in of_method)
    rows = [
        (layer, *(number(fmean(of[layer]), 3) if layer in of else "–" for of in rates.values())) for layer in layers
    ]
    title = f"{study.name}: firing rate, spikes per neuron and time step, mean over the seeds"
    return Table(title, ("Layer", *rates), tuple(rows))


def relations_table(study: RunsOfStudy) -> Table:
    """R_hat and the scale of every synapse after the last epoch, mean over the seeds; no rows where nobody measured."""
    rows: list[tuple[str, ...]] = []
    for method in study.recipe.methods:
        for quantity, symbol in (("relation", "R_hat"), ("scale", "scale")):
            for synapse, epochs in relations_by_epoch(study.of(method), quantity).items():
                last = list(epochs.values())[-1]
                rows.append((method, synapse, symbol, *(number(last[name], 3) for name in STATISTICS)))
    quantiles = (f"{int(name[1:])} %" for name in STATISTICS if name != "mean")
    title = f"{study.name}: relation and scale after the last epoch, mean over the seeds"
    return Table(title, ("Method", "Synapse", "Quantity", "mean", *quantiles), tuple(rows))


def methods_table(study: RunsOfStudy) -> Table:
    """What sets the methods apart: the options that are not the same in all."""
    options = {name: asdict(method) for name, method in study.recipe.methods.items()}
    first = next(iter(options.values()))
    rows = _differing([*options.values()]) or [(name, str(value)) for name, value in first.items()]
    return Table(f"{study.name}: options of the methods", ("Option", *options), tuple(rows))


def recipes_table(studies: Sequence[RunsOfStudy]) -> Table:
    """What sets studies apart: the fields of their recipes that are not the same in all."""
    own = {"name": None, "description": None, "methods": None, "seeds": None}
    rows = _differing([_flat({**asdict(study.recipe), **own}) for study in studies])
    header = ("Field", *(study.name for study in studies))
    return Table("Fields of the recipes that differ", header, tuple(rows))


def _differing(values: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each name under which not all have the same."""
    rows = [
        (name, *(str(each.get(name, "–")) for each in values)) for name in dict.fromkeys(n for v in values for n in v)
    ]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Values of nested dicts by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
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
