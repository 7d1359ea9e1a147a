"""Finds runs in folders, reads what they wrote, and puts together those of one study."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracegrad.lab.recipe.fields import Claims, Recipe
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run, deciding, read_run
from tracegrad.measure.relations import STATISTICS

Rows = list[dict[str, Any]]
NAMES = {"synapse", "quantity"}  # columns of text


@dataclass(frozen=True)
class FinishedRun:
    """A complete run and what it wrote.

    Args:
        run: the run.
        result: content of result.json.
        epochs: rows of metrics.csv.
        relations: rows of relations.csv; empty without one.
        probe: arrays of probe.npz; empty without one.
        test: arrays of test.npz, the predicted class and the label of each test image; empty without one.
    """

    run: Run
    result: dict[str, Any]
    epochs: Rows
    relations: Rows
    probe: dict[str, NDArray[Any]]
    test: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RunsOfStudy:
    """The runs of one recipe.

    Args:
        name: of the recipe; with a number where several of the report's recipes share it.
        recipe: with the methods and seeds of the complete runs.
        runs: the complete ones by (method, seed).
        unfinished: those that are not over, with the number of epochs that each has behind it.
        diverged: those that came to nothing.
    """

    name: str
    recipe: Recipe
    runs: dict[tuple[str, int], FinishedRun]
    unfinished: tuple[tuple[Run, int], ...]
    diverged: tuple[Run, ...] = ()

    def of(self, method: str) -> list[FinishedRun]:
        """The complete runs of a method, by seed."""
        return [self.runs[method, seed] for seed in self.recipe.seeds if (method, seed) in self.runs]

    def failures(self, method: str) -> list[int]:
        """The seeds with which a method diverged."""
        return sorted(run.seed for run in self.diverged if run.name == method)

    def pairs(self, method: str, other: str) -> list[tuple[FinishedRun, FinishedRun]]:
        """Complete runs of two methods with the same seed."""
        seeds = [seed for seed in self.recipe.seeds if {(method, seed), (other, seed)} <= self.runs.keys()]
        return [(self.runs[method, seed], self.runs[other, seed]) for seed in seeds]

    def against_baseline(self) -> dict[str, list[tuple[FinishedRun, FinishedRun]]]:
        """The pairs of each other method with the baseline, by method; without those that have none."""
        baseline = self.recipe.baseline
        others = (method for method in self.recipe.methods if baseline and method != baseline)
        return {method: pairs for method in others if (pairs := self.pairs(method, baseline or ""))}

    def synapses(self, array: str) -> list[str]:
        """Those of which a run's probe holds some array, such as pre_spikes, in the network's order."""
        names = (key.rsplit("/", 1) for run in self.runs.values() for key in run.probe if key.endswith(f"/{array}"))
        return list(dict.fromkeys(synapse for synapse, _ in names))


def collect(folders: Sequence[Path]) -> list[RunsOfStudy]:
    """Reads runs and sorts them into studies: runs of one study differ in method and seed alone.

    Args:
        folders: of runs or of studies (METHOD/seed-N in each).

    Raises:
        ValueError: a folder without a run, a damaged file, two runs of one method and seed, or no complete run.
    """
    found = {path.resolve(): path for folder in folders for path in _run_folders(folder)}
    studies: dict[str, list[Run]] = {}
    for path in found.values():
        run = read_run(path)
        studies.setdefault(_shared_fields(run.recipe), []).append(run)
    names: dict[str, int] = {}
    collected: list[RunsOfStudy] = []
    for runs in studies.values():
        name = runs[0].recipe.name
        names[name] = names.get(name, 0) + 1
        if any(run.complete for run in runs):
            collected.append(_put_together(name if names[name] == 1 else f"{name}-{names[name]}", runs))
    if not collected:
        raise ValueError(
            f"no run in {', '.join(map(str, folders))} is complete: none has a result.json, and some may have diverged"
        )
    return collected


def _run_folders(folder: Path) -> list[Path]:
    if (folder / "config.yaml").is_file():
        return [folder]
    runs = sorted(config.parent for config in folder.glob("*/seed-*/config.yaml"))
    if not runs:
        raise ValueError(f"{folder} is no run and no study: it holds neither config.yaml nor METHOD/seed-N/config.yaml")
    return runs


def _shared_fields(recipe: Recipe) -> str:
    """What the runs of a study have in common, as text."""
    fields = deciding(replace(recipe, data=replace(recipe.data, root=None)))
    return str(sorted(item for item in fields.items() if item[0].partition(".")[0] not in ("methods", "seeds")))


def _put_together(name: str, runs: Sequence[Run]) -> RunsOfStudy:
    complete, methods = dict[tuple[str, int], FinishedRun](), dict[str, Method]()
    for run in (run for run in runs if run.complete):
        if (other := complete.get((run.name, run.seed))) is not None:
            raise ValueError(f"{other.run.folder} and {run.folder} hold the same method and seed; report one")
        if methods.setdefault(run.name, run.method) != run.method:
            raise ValueError(f"{run.folder} has other options than another run called {run.name!r}")
        complete[run.name, run.seed] = _read(run)
    baselines_first = dict(sorted(methods.items(), key=lambda item: item[1].alpha != 0))
    study = runs[0].folder.parent.parent / "study.yaml"
    claims = load_recipe(str(study)).claims.on(methods) if study.is_file() else Claims()
    recipe = replace(
        runs[0].recipe, methods=baselines_first, claims=claims, seeds=sorted({seed for _, seed in complete})
    )
    unfinished = tuple((run, len(_rows(run.folder / "metrics.csv"))) for run in runs if not run.over)
    diverged = tuple(run for run in runs if run.diverged and not run.complete)
    return RunsOfStudy(name, recipe, complete, unfinished, diverged)


def _read(run: Run) -> FinishedRun:
    epochs = _rows(run.folder / "metrics.csv", "epoch", "train_loss", "validation_accuracy")
    relations = _rows(run.folder / "relations.csv", "epoch", "synapse", "quantity", *STATISTICS)
    return FinishedRun(
        run, run.read_result(), epochs, relations, _arrays(run.folder / "probe.npz"), _arrays(run.folder / "test.npz")
    )


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Names the file in whatever goes wrong."""
    try:
        yield
    except (ValueError, TypeError, OSError, EOFError, KeyError, csv.Error, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def _rows(path: Path, *columns: str) -> Rows:
    """Rows of a CSV file, in which all but names are numbers; none without the file."""
    if not path.is_file():
        return []
    with _reading(path):
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="none", strict=True)
        if not text.endswith("\n") or not set(reader.fieldnames or ()) >= set(columns):
            raise ValueError("it is not whole")
        return [{name: cell if name in NAMES else float(cell) for name, cell in row.items()} for row in reader]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        return {}
    with _reading(path), path.open("rb") as file, zipfile.ZipFile(file):  # else NumPy takes it for another kind of file
        file.seek(0)
        return dict(np.load(file, allow_pickle=False))
