"""The table of a study whose methods are of several kinds: what each costs, and what it started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.report.style import accuracy_against
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.tables import accuracy, results_table, spikes, with_failures
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.lab.studies.statistics import summarize

COSTS: dict[str, tuple[str, float, int]] = {
    "Spikes (K)": ("spikes_per_image", 1e-3, 2),
    "Accumulates (M)": ("accumulates_per_image", 1e-6, 2),
    "Multiplications (M)": ("multiply_accumulates_per_image", 1e-6, 2),
    "Energy (µJ)": ("energy_per_image_uj", 1.0, 2),
    "Parameters (K)": ("parameters", 1e-3, 1),
    "Memory (MB)": ("peak_memory_mb", 1.0, 0),
}
"""Columns: field of result.json, factor, digits."""


def is_comparison(recipe: Recipe) -> bool:
    """Whether methods differ in more than the scaling of their gradients."""
    return any(method.kind != "direct" or method.changes for method in recipe.methods.values())


def study_table(study: RunsOfStudy) -> Table:
    """The table of a study's results: in the paper's form where methods differ in their scaling alone."""
    return comparison_table(study) if is_comparison(study.recipe) else results_table(study)


def comparison_table(study: RunsOfStudy) -> Table:
    """Accuracy of every method, that of its source, and its costs, means over the seeds and per test image."""
    header = ("Method", "T", "Accuracy (%) mean", "± std", "max", "Source (%)", *COSTS, "s/epoch")
    title = (
        f"{study.name}: test accuracy and costs per image, seeds {', '.join(map(str, study.recipe.seeds))}; "
        f"{study.recipe.data.name}, {_images(study.recipe)} training images"
    )
    rows = tuple(_row(method, study.of(method)) for method in study.recipe.methods)
    return with_failures(study, Table(title, header, rows))


def _images(recipe: Recipe) -> str:
    return "all" if recipe.data.train_size is None else f"{recipe.data.train_size:,}"


def _row(method: str, runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    of_accuracy = summarize([accuracy(run) for run in runs])
    accuracies = (number(value) for value in (of_accuracy.mean, of_accuracy.deviation, of_accuracy.maximum))
    costs = (_mean(runs, _field(name, factor), digits) for name, factor, digits in COSTS.values())
    return (
        method,
        str(runs[0].result["time_steps"]),
        *accuracies,
        _mean(runs, _field("source_accuracy", 100), 2),
        *costs,
        _mean(runs, _seconds_per_epoch, 1),
    )


def _field(name: str, factor: float) -> Callable[[FinishedRun], float | None]:
    def value(run: FinishedRun) -> float | None:
        found = run.result.get(name)
        return None if found is None else factor * found

    return value


def _seconds_per_epoch(run: FinishedRun) -> float | None:
    epochs = run.result.get("epochs")
    return run.result["seconds"] / epochs if epochs else None


def _mean(runs: Sequence[FinishedRun], quantity: Callable[[FinishedRun], float | None], digits: int) -> str:
    values = [value for value in map(quantity, runs) if value is not None]
    return number(fmean(values), digits) if values else "–"


def study_figure(study: RunsOfStudy) -> dict[str, bytes]:
    """Accuracy against what an image costs: energy where kinds of networks differ, spikes otherwise."""
    accuracies = {method: [accuracy(run) for run in study.of(method)] for method in study.recipe.methods}
    energy = {method: _energies(study.of(method)) for method in study.recipe.methods}
    known = {method: values for method, values in energy.items() if len(values) == len(accuracies[method])}
    if is_comparison(study.recipe) and known:
        shown = {method: accuracies[method] for method in known}
        return accuracy_against("Energy per image (µJ), estimated", study.name, known, shown)
    spikes_of = {method: [spikes(run) for run in study.of(method)] for method in study.recipe.methods}
    return accuracy_against("Spikes per image (thousands)", study.name, spikes_of, accuracies)


def _energies(runs: Sequence[FinishedRun]) -> list[float]:
    return [value for run in runs if (value := run.result.get("energy_per_image_uj")) is not None]
