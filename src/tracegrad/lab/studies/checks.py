"""Checks before anything is trained: that runs fit their data, and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from tracegrad.lab.data import Batches, DataOptions, Dataset, load
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.procedures.own_code import register_code
from tracegrad.lab.runs.isolation import quiet
from tracegrad.lab.runs.run import Run, read_run
from tracegrad.lab.values import require


def check_runs(runs: Sequence[Run], planned: Sequence[Run]) -> dict[DataOptions, Dataset]:
    """Loads the data of runs, and builds the network of each method once.

    Args:
        runs: what is to be trained.
        planned: these and others that are trained, or will have been.

    Returns:
        The data sets by the options of the runs' recipes.

    Raises:
        ValueError: a method does not fit its network, its data or its source; a source is missing; wrong code.
        OSError: data are missing.
    """
    for recipe in {run.name: run.recipe for run in runs}.values():
        register_code(recipe)
    load_once, stored = cache(load), {"crop_padding": 0, "flip": False, "cutmix": 0.0, "cutmix_until": None}
    datasets = {data: load_once(replace(data, **stored)) for data in (run.setting.data for run in runs)}
    by_folder = {run.folder: run for run in planned}
    sources = {run.folder: _source(run, by_folder) for run in runs}
    for run in {run.name: run for run in runs}.values():
        dataset = datasets[run.setting.data]
        if frames := dataset.time_steps:
            right = f"{frames}, the frames of a recording of {dataset.name}"
            require(run.setting.model.time_steps == frames, "model.time_steps", right, run.setting.model.time_steps)
            kind, right = run.method.kind, f"direct or relu: others take images, not the frames of {dataset.name}"
            require(kind in ("direct", "relu"), f"the kind of method {run.name!r}", right, kind)
        Batches(dataset.train, 1, dataset=dataset, seed=run.seed, options=run.setting.data)  # crops must fit the images
        with torch.random.fork_rng(), quiet():
            procedure_of(run.method).check(run, Task.of(dataset), sources[run.folder])
    return datasets


def _source(run: Run, planned: dict[Path, Run]) -> Run | None:
    """The run that another one starts from: planned before it, or complete."""
    needed, named = procedure_of(run.method).needs_source, run.method.source
    if needed != (named is not None):
        raise ValueError(
            f"method {run.name!r} of kind {run.method.kind!r} {'needs a' if needed else 'takes no'} source"
        )
    if named is None:
        return None
    if run.source_folder in planned:
        return planned[run.source_folder]
    source = read_run(run.source_folder) if run.source_folder.is_dir() else None
    if source is None or not source.over:
        raise ValueError(
            f"{run.label} starts from {named}, and {run.source_folder} holds no complete run; "
            f"train it first: --method {named} --seed {run.seed}"
        )
    return source
