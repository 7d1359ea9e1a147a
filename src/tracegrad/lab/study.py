"""Studies: every method with every seed, then tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tracegrad.lab.build import check
from tracegrad.lab.data import load
from tracegrad.lab.figure import accuracy_against_spikes
from tracegrad.lab.files import write
from tracegrad.lab.progress import RunProgress
from tracegrad.lab.recipe import Recipe
from tracegrad.lab.runs import Run, plan, to_yaml
from tracegrad.lab.statistics import Difference, Summary, paired_difference, summarize
from tracegrad.lab.table import Table, number
from tracegrad.lab.training import train_run


@dataclass(frozen=True)
class Study:
    """A finished study.

    Args:
        folder: of the study, with its tables and figures.
        methods: table of accuracy and spikes of each method, in the paper's form.
        differences: table of the paired differences; None without a baseline and another method.
    """

    folder: Path
    methods: Table
    differences: Table | None


def run_study(recipe: Recipe, folder: Path, console: Console) -> Study:
    """Trains what is not yet complete of a study, and writes its tables and figures.

    Args:
        recipe: the study.
        folder: where runs go, METHOD/seed-N each; complete runs in it are kept.
        console: where to show progress.

    Raises:
        ValueError: a run in the folder has another configuration, a method does not fit the network, or NaN.
        OSError: the folder cannot be written to, or the data cannot be read.
    """
    runs = plan(recipe, folder)
    results = run_all(runs, console)
    return summarize_study(recipe, folder, results)


def run_all(runs: Sequence[Run], console: Console) -> list[dict[str, Any]]:
    """Trains the runs that are not yet complete, one after the other, and returns the results of all.

    The runs share the data set of the first one.

    Raises:
        ValueError, OSError: as `run_study`; what can be checked is checked before the first run starts.
    """
    for run in runs:
        run.check()
    done = [run for run in runs if run.complete]
    with RunProgress(console) as progress:
        for run in done:
            progress.finish(run, run.read_result(), skipped=True)
        _train([run for run in runs if run not in done], progress)
    return [run.read_result() for run in runs]


def _train(runs: Sequence[Run], progress: RunProgress) -> None:
    if not runs:
        return
    dataset = load(runs[0].recipe.data)
    for run in {run.name: run for run in runs}.values():
        check(run.recipe, dataset)
    for run in runs:
        progress.finish(run, train_run(run, dataset, [progress.callback(run)]))


def summarize_study(recipe: Recipe, folder: Path, results: Sequence[dict[str, Any]]) -> Study:
    """Writes the tables and figures of a study: table.md, table.csv, differences.csv, figure.png, figure.svg.

    Args:
        recipe: the study.
        folder: where to write them.
        results: of its runs, in any order.
    """
    accuracy = _by_method(recipe, results, "test_accuracy", 100)
    spikes = _by_method(recipe, results, "spikes_per_image", 1e-3)
    study = Study(folder, _methods(recipe, accuracy, spikes), _differences(recipe, accuracy, spikes))
    tables = [study.methods, study.differences] if study.differences else [study.methods]
    write(folder / "study.yaml", to_yaml(recipe))
    write(folder / "table.md", "\n".join(table.markdown() for table in tables))
    write(folder / "table.csv", study.methods.csv())
    if study.differences:
        write(folder / "differences.csv", study.differences.csv())
    for suffix, image in accuracy_against_spikes(recipe.name, spikes, accuracy).items():
        write(folder / f"figure.{suffix}", image)
    return study


def _by_method(
    recipe: Recipe, results: Sequence[dict[str, Any]], quantity: str, factor: float
) -> dict[str, list[float]]:
    """A quantity of every method's runs, in the order of the seeds, which pairs the methods."""
    values = {(result["method"], result["seed"]): factor * result[quantity] for result in results}
    return {method: [values[method, seed] for seed in recipe.seeds] for method in recipe.methods}


def _methods(recipe: Recipe, accuracy: dict[str, list[float]], spikes: dict[str, list[float]]) -> Table:
    rows = [
        (method, recipe.model.neuron.reset, *_cells(summarize(accuracy[method])), *_cells(summarize(spikes[method])))
        for method in recipe.methods
    ]
    title = f"{recipe.name}: test accuracy and spikes per image, seeds {', '.join(map(str, recipe.seeds))}"
    return Table(title, _header(("Methods", "Reset"), "%", ("mean", "max", "std")), tuple(rows))


def _header(first: tuple[str, ...], unit: str, statistics: tuple[str, ...]) -> tuple[str, ...]:
    return first + tuple(f"{name} {each}" for name in (f"Accuracy ({unit})", "# spikes (K)") for each in statistics)


def _cells(summary: Summary) -> tuple[str, str, str]:
    return number(summary.mean), number(summary.maximum), number(summary.deviation)


def _differences(recipe: Recipe, accuracy: dict[str, list[float]], spikes: dict[str, list[float]]) -> Table | None:
    baseline = recipe.baseline
    others = [method for method in recipe.methods if method != baseline]
    if baseline is None or not others:
        return None
    rows = [
        (
            f"{method} - {baseline}",
            *_interval(paired_difference(accuracy[method], accuracy[baseline])),
            *_interval(paired_difference(spikes[method], spikes[baseline])),
        )
        for method in others
    ]
    title = f"{recipe.name}: mean paired differences and their 95 % intervals"
    return Table(title, _header(("Difference",), "points", ("mean", "low", "high")), tuple(rows))


def _interval(difference: Difference) -> tuple[str, str, str]:
    mean, low, high = (number(value, sign=True) for value in (difference.mean, difference.low, difference.high))
    return mean, low, high
