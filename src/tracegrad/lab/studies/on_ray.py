"""A study on Ray: each run is a task, on whichever machine of a cluster has room for it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run, plan, to_yaml
from tracegrad.lab.studies.checks import check_runs
from tracegrad.lab.studies.progress import StudyProgress
from tracegrad.lab.studies.study import run_all

RETRIES = 10  # of a task whose worker or machine died; it goes on from its checkpoint
PAUSE = 1.0  # seconds between two looks at the runs


def run_on_ray(recipe: Recipe, folder: Path, console: Console, address: str | None = None) -> None:
    """Trains the runs of a study that are not over as tasks of Ray.

    A task takes as many CPUs as the recipe has threads, and a GPU where the cluster has some. It gets strings alone,
    and finds everything else in the folder, which all machines share.

    Args:
        recipe: the study.
        folder: of the study.
        console: where to show progress.
        address: of the cluster; by default a local instance with all cores and GPUs of this machine.

    Raises:
        ValueError: Ray is not installed; as `run_all`.
        OSError, ConnectionError: there is no cluster at the address; as `run_all`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
    except ModuleNotFoundError:
        raise ValueError("--ray needs the package ray: pip install 'tracegrad[cluster]'") from None
    folder = folder.resolve()
    runs = plan(recipe, folder)
    for run in runs:
        run.check()
    waiting = [run for run in runs if not run.over]
    check_runs(waiting, planned=runs)
    write(folder / "study.yaml", to_yaml(recipe))
    own: dict[str, Any] = {"include_dashboard": False} if address is None else {"address": address}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task: Any = ray.remote(num_gpus=gpus, max_retries=RETRIES)(_train)
        tasks: dict[Path, Any] = {}
        for run in waiting:  # sources come first
            source = tasks.get(run.source_folder) if run.method.source else None
            enough = task.options(num_cpus=run.setting.training.threads or 1)
            tasks[run.folder] = enough.remote(str(folder), run.name, run.seed, source)
        with StudyProgress(console, runs, [run for run in runs if run not in waiting]) as progress:
            _follow(ray, {tasks[run.folder]: run for run in waiting}, progress)
    finally:
        ray.shutdown()


def _train(folder: str, method: str, seed: int, _source: Any) -> None:
    """One run of a study: what a task does. `_source` is there to be waited for."""
    recipe = load_recipe(str(Path(folder) / "study.yaml"))
    (run,) = plan(recipe.only(method, seed), Path(folder))
    run_all([run], Console(quiet=True))


def _follow(ray: Any, running: dict[Any, Run], progress: StudyProgress) -> None:
    """Shows how tasks go until all are done."""
    while running:
        done, _ = ray.wait(list(running), timeout=PAUSE)
        for each in done:
            try:
                ray.get(each)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            progress.over(running.pop(each))
        for run in running.values():
            with suppress(OSError):  # before the first epoch has ended
                lines = (run.folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
                progress.note(run, f"{len(lines) - 1}/{run.setting.training.epochs}")
