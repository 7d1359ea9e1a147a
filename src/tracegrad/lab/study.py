"""Studies: every method with every seed, then tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from tracegrad.lab.checks import check_runs
from tracegrad.lab.files import write
from tracegrad.lab.probe import Probe
from tracegrad.lab.progress import RunProgress
from tracegrad.lab.recipe import Recipe
from tracegrad.lab.report.collect import collect
from tracegrad.lab.report.comparison import study_figure, study_table
from tracegrad.lab.report.tables import differences_table
from tracegrad.lab.runs import Run, plan, to_yaml
from tracegrad.lab.table import Table
from tracegrad.lab.training import train_run


@dataclass(frozen=True)
class Study:
    """A finished study.

    Args:
        folder: of the study, with its tables and figures.
        methods: table of accuracy and spikes of each method.
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
    run_all(plan(recipe, folder), console)
    return summarize_study(recipe, folder)


def run_all(runs: Sequence[Run], console: Console, resume: bool = True) -> None:
    """Trains the runs that are not yet complete, one after the other.

    Args:
        runs: sources come before what starts from them.
        console: where to show progress.
        resume: keep complete runs and go on with interrupted ones; otherwise train all of them from the beginning.

    Raises:
        ValueError, OSError: as `run_study`; what can be checked is checked before the first run starts.
    """
    for run in runs:
        run.check()
    done = {run.folder: run.read_result() for run in runs if resume and run.complete}
    missing = [run for run in runs if run.folder not in done]
    datasets = check_runs(missing, planned=runs)
    with RunProgress(console, runs) as progress:
        for run in runs:
            if run.folder in done:
                progress.finish(run, done[run.folder], skipped=True)
        for run in missing:
            if not resume:
                run.clear()
            callbacks = [progress.callback(run), Probe(run)]
            progress.finish(run, train_run(run, datasets[run.setting.data], callbacks))


def summarize_study(recipe: Recipe, folder: Path) -> Study:
    """Writes the tables and figures of a finished study: table.md, table.csv, differences.csv, figure.png, figure.svg.

    Args:
        recipe: the study.
        folder: of the study, with all of its runs complete.

    Raises:
        ValueError: a run is damaged.
        OSError: the folder cannot be written to.
    """
    (collected,) = collect([run.folder for run in plan(recipe, folder)])
    runs = replace(collected, recipe=recipe)
    study = Study(folder, study_table(runs), differences_table(runs))
    tables = [study.methods, study.differences] if study.differences else [study.methods]
    write(folder / "study.yaml", to_yaml(recipe))
    write(folder / "table.md", "\n".join(table.markdown() for table in tables))
    write(folder / "table.csv", study.methods.csv())
    if study.differences:
        write(folder / "differences.csv", study.differences.csv())
    for suffix, image in study_figure(runs).items():
        write(folder / f"figure.{suffix}", image)
    return study
