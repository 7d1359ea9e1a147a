"""A complete run: its result, and its network with the best weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tracegrad.lab.data import Dataset, load
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.procedures.own_code import register_code
from tracegrad.lab.runs.checkpoints import kept_weights
from tracegrad.lab.runs.run import Run, read_run

log = logging.getLogger(__name__)
NEEDED = ("test_accuracy", "spikes_per_image", "neurons_per_layer", "classes", "image_shape")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A complete run.

    Args:
        run: the run.
        result: content of its result.json.
        weights: of the best epoch by validation accuracy, as the network's `state_dict`.
    """

    run: Run
    result: dict[str, Any]
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Reads the folder of a run.

        Raises:
            ValueError: it holds no run, an interrupted one, or damaged files.
            OSError: the checkpoint is missing or cannot be read.
        """
        run = read_run(folder)
        if run.diverged:
            raise ValueError(f"{folder} holds a run that diverged: {run.diverged}")
        if not run.complete:
            raise ValueError(f"{folder} holds an interrupted run; start it again to go on, then come back")
        result = run.read_result()
        for name in NEEDED:
            if name not in result:
                raise ValueError(f"{folder / 'result.json'} is damaged: it has no {name}; remove it and train again")
        trained = result.get("code_digests", {})
        for name, digest in register_code(run.recipe).items():
            if trained.get(name) != digest:
                log.warning("%s is not as it was when %s was trained", name, folder)
        return cls(run, result, kept_weights(run))

    @cached_property
    def dataset(self) -> Dataset:
        """The data of the run; read when it is first asked for."""
        return load(self.run.setting.data)

    @property
    def time_steps(self) -> int:
        """T of the training."""
        return procedure_of(self.run.method).time_steps(self.run)

    @property
    def task(self) -> Task:
        """What the network learned."""
        channels, *size = self.result["image_shape"]
        classes, frames = len(self.result["classes"]), self.result.get("frames")
        return Task(classes, channels, tuple(size), lambda count: Task.of(self.dataset).first_images(count), frames)

    def network(self, time_steps: int | None = None) -> nn.Module:
        """Builds the network with its trained weights, in evaluation mode.

        Args:
            time_steps: T for images; the trained one by default.

        Raises:
            ValueError: the weights are those of another network, or T does not fit it.
        """
        return procedure_of(self.run.method).network(self.run, self.weights, self.task, time_steps)
