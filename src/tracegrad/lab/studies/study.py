"""Studies: every method with every seed, trained by one process or shared among many."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress

from rich.console import Console

from tracegrad.lab.data import DataOptions, Dataset
from tracegrad.lab.ranks import agree, is_first, start
from tracegrad.lab.runs.claim import claim
from tracegrad.lab.runs.memory import keep_freed_memory
from tracegrad.lab.runs.run import Run, read_run
from tracegrad.lab.studies.checks import check_runs
from tracegrad.lab.studies.progress import StudyProgress
from tracegrad.lab.studies.train_run import train_run
from tracegrad.lab.train import DivergenceError

PAUSE = 0.5  # seconds between two looks at runs that others train


def run_all(runs: Sequence[Run], console: Console, resume: bool = True, wait: bool = True) -> list[Run]:
    """Trains the runs that are not yet complete, one after the other; a run that diverges is over, too.

    Any number of processes may do the same at once: each run is trained by one of them, and one that was killed is
    replaced by another.

    Args:
        runs: sources come before what starts from them.
        console: where to show progress.
        resume: keep complete runs and go on with interrupted ones; otherwise train all of them from the beginning.
        wait: for the runs that other processes train.

    Returns:
        The runs that others are still training; none if `wait`.

    Raises:
        ValueError: a folder holds a run of another configuration, a method does not fit the network, or NaN in images.
        OSError: a folder cannot be written to, or the data cannot be read. What can be checked is checked before the
            first run starts.
    """
    console = _joined(runs, console)
    keep_freed_memory()
    for run in runs:
        run.check()
    waiting = [run for run in runs if not (resume and run.over)]
    datasets = check_runs(waiting, planned=runs)
    with StudyProgress(console, runs, [run for run in runs if run not in waiting]) as progress:
        while waiting:
            finished = _next(waiting, datasets, progress, resume)
            if finished:
                waiting.remove(finished)
            elif not wait:
                return waiting
            else:
                time.sleep(PAUSE)
    return []


def _next(
    waiting: Sequence[Run], datasets: Mapping[DataOptions, Dataset], progress: StudyProgress, resume: bool
) -> Run | None:
    """Sees the first run that is nobody's to its end; None where others have all of them."""
    unfinished = {run.folder for run in waiting}
    for run in waiting:
        if run.method.source is not None and run.source_folder in unfinished:
            continue
        with claim(run) if is_first() else nullcontext() as found:
            holder, over = agree((found, resume and run.over))
            if holder:
                progress.note(run, holder)
                continue
            if over:
                progress.over(run, "trained by another process")
                return run
            if not resume:
                run.clear()
            source = None if run.method.source is None else read_run(run.source_folder)
            if source and source.diverged:
                run.write_config()
                run.write_diverged(f"{run.label}: its source {source.name} diverged")
            else:
                with suppress(DivergenceError):
                    train_run(run, datasets[run.setting.data], progress.watch(run))
            progress.over(run)
            return run
    return None


def _joined(runs: Sequence[Run], console: Console) -> Console:
    """Joins the processes that train together; a console that shows nothing for all of them but the first."""
    together = {(run.setting.training.devices, run.setting.training.nodes) for run in runs}
    if len(together) > 1:
        raise ValueError("all methods of a study must have the same training.devices and training.nodes")
    start("fp32", *together.pop())
    return console if is_first() else Console(quiet=True)
