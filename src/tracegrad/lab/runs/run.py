"""Runs and their folders: STUDY/METHOD/seed-N with config.yaml, metrics.csv, checkpoints and result.json."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from tracegrad.events.choice import mode
from tracegrad.events.library import digest, library, machine_instruction_set
from tracegrad.lab.files import write
from tracegrad.lab.ranks import is_first
from tracegrad.lab.recipe.fields import Claims, Recipe
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.values import typed

DIVERGED = "diverged.json"
PACKAGE = Path(__file__).parents[2]
WRITTEN = (
    *("result.json", DIVERGED, "metrics.csv", "relations.csv", "probe.npz", "test.npz"),
    *("checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/weights.ckpt"),
)


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict):
    """What every result.json holds, among other things."""

    test_accuracy: float
    spikes_per_image: float
    validation_accuracy: float
    epochs: int
    seconds: float
    spikes_per_layer: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training with one method and one seed.

    Args:
        folder: of the run.
        recipe: of this run alone: it has one method and one seed.
    """

    folder: Path
    recipe: Recipe

    @cached_property
    def setting(self) -> Recipe:
        """The recipe with the changes of the method in it: what is trained."""
        return self.recipe.setting(self.name)

    @property
    def name(self) -> str:
        """Name of the method."""
        return next(iter(self.recipe.methods))

    @property
    def method(self) -> Method:
        """Options of the method."""
        return self.recipe.methods[self.name]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.recipe.seeds[0]

    @property
    def source_folder(self) -> Path:
        """Folder of the run whose network is converted or teaches: of the same study and seed.

        Raises:
            ValueError: the method names no source.
        """
        if self.method.source is None:
            raise ValueError(f"method {self.name!r} has no source")
        return self.folder.parent.parent / self.method.source / self.folder.name

    @property
    def label(self) -> str:
        """What to call the run on a line."""
        return f"{self.name}, seed {self.seed}"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def weights(self) -> Path:
        """The file of the weights that are tested."""
        return self.checkpoints / "weights.ckpt"

    @property
    def complete(self) -> bool:
        """Whether the run came to its end: its result is there."""
        return (self.folder / "result.json").is_file()

    @property
    def diverged(self) -> str | None:
        """Why a training came to nothing: NaN or infinity in loss or weights. It would again."""
        try:
            return str(json.loads((self.folder / DIVERGED).read_text(encoding="utf-8"))["reason"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return "damaged"

    @property
    def over(self) -> bool:
        """Whether nothing is left to do: the run is complete, or diverged."""
        return self.complete or self.diverged is not None

    def check(self) -> None:
        """Checks that the folder is free or holds this very run; what diverged makes way for another configuration.

        Raises:
            ValueError: it holds a run of another configuration.
        """
        config = self.folder / "config.yaml"
        if not config.is_file():
            if self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
                raise ValueError(f"{self.folder} holds files, but no config.yaml of a run; choose another --output")
            return
        if not (self.over or self.checkpoints.exists()):
            return  # an error stopped it before anything was kept
        there, here = deciding(load_recipe(str(config))), deciding(self.recipe)
        field = next((field for field in here | there if here.get(field) != there.get(field)), None)
        if field and self.diverged:
            self.clear()
        elif field:
            raise ValueError(
                f"{self.folder} holds a run with another {field} ({there.get(field)!r} there, "
                f"{here.get(field)!r} here); choose another --output or remove the folder"
            )

    def clear(self) -> None:
        """Removes what a training writes, and nothing else, so that the run starts from the beginning."""
        for name in WRITTEN if is_first() else ():  # the result first: a run that is removed by half is not complete
            (self.folder / name).unlink(missing_ok=True)

    def write_config(self) -> None:
        """Writes the recipe of this run, with every field, to config.yaml."""
        write(self.folder / "config.yaml", to_yaml(self.recipe))

    def write_result(self, result: dict[str, Any], name: str = "result.json") -> None:
        """Writes result.json, the last file of a run: its presence marks the run as complete."""
        write(self.folder / name, json.dumps(result, indent=2) + "\n")

    def write_diverged(self, reason: str) -> None:
        """Writes down that the training came to nothing, and why."""
        self.write_result({"reason": reason}, DIVERGED)

    def read_result(self) -> dict[str, Any]:
        """Reads result.json.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "result.json"
        try:
            return typed(Result, json.loads(path.read_bytes()), "its content")
        except (ValueError, RecursionError) as error:
            advice = "remove it, and the same command measures the run again"
            raise ValueError(f"{path} is damaged: {error}; {advice}") from None


def read_run(folder: Path) -> Run:
    """The run in a folder, complete or not.

    Raises:
        ValueError: there is none, or its config.yaml is damaged.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{folder} is no run: it has no config.yaml; give a folder such as runs/NAME/METHOD/seed-0")
    try:
        recipe = load_recipe(str(config))
    except ValueError as error:
        raise ValueError(f"{config} is damaged: {error}") from None
    if len(recipe.methods) != 1 or len(recipe.seeds) != 1:
        raise ValueError(f"{config} is not that of a run: it must have one method and one seed")
    return Run(folder, recipe)


def plan(recipe: Recipe, study: Path) -> list[Run]:
    """The runs of a study, seed by seed, so that runs that were done make whole pairs; sources come first.

    Raises:
        ValueError: methods that are each other's source.
    """
    methods = TopologicalSorter(
        {name: [method.source] if method.source in recipe.methods else [] for name, method in recipe.methods.items()}
    )
    try:
        order = list(methods.static_order())
    except CycleError as error:
        raise ValueError(f"methods are each other's source: {' <- '.join(error.args[1])}") from None
    return [
        Run(study / method / f"seed-{seed}", recipe.only(method, seed)) for seed in recipe.seeds for method in order
    ]


def to_yaml(recipe: Recipe) -> str:
    """A recipe as a YAML file that reads as the same recipe."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)


def deciding(recipe: Recipe) -> dict[str, Any]:
    """What decides the numbers of a run, by dotted field."""
    training, data = replace(recipe.training, checkpoint_every="1s"), replace(recipe.data, download=False)
    plain = replace(recipe, description="", code=None, claims=Claims(), data=data, training=training)
    return _flat(json.loads(json.dumps(asdict(plain))), "")


def _flat(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {where: value}
    parts = [_flat(inner, f"{where}.{name}".lstrip(".")) for name, inner in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def commit() -> str | None:
    """The commit of the code that runs, "-dirty" where files of the package differ from it; None where nothing says.

    It is that of the checkout which holds the package, or that from which pip installed it (PEP 610).
    """

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=False)  # noqa: S603, S607

    if shutil.which("git") and git("ls-files", "--error-unmatch", "__init__.py").returncode == 0:
        changed = git("diff", "--quiet", "HEAD", "--", ".").returncode != 0
        return git("rev-parse", "HEAD").stdout.strip() + ("-dirty" if changed else "")
    installed = json.loads(distribution("tracegrad").read_text("direct_url.json") or "{}")
    return installed.get("vcs_info", {}).get("commit_id")


def environment() -> dict[str, Any]:
    """Versions, machine and command, as a result records them; the event kernels settle how sums are rounded."""
    none = mode() == "off" or library(machine_instruction_set()) is None
    packages = ("tracegrad", "torch", "numpy", "lightning-fabric")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "event kernels": "none" if none else f"{machine_instruction_set()}, source {digest()}",
        },
    }
