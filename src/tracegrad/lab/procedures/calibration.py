"""A trained network without spikes, converted and calibrated; nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tracegrad.lab.data import Dataset
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.relu import check_mean_readout, check_source, trained_twin, twin
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.checkpoints import kept_weights, save_weights
from tracegrad.lab.runs.run import Run, read_run
from tracegrad.lab.train import Fitted, Watch
from tracegrad.methods.calibration import Mode, calibrate

TOGETHER = 64  # images, for all of their time steps are in memory at once


@dataclass(frozen=True)
class Calibration(Procedure):
    """Conversion with calibration (Li et al. 2021). Its checkpoint is the source's: it is converted where it is used.

    Args:
        mode: "light" calibrates biases, "advanced" the membranes at the start, too.
        images: training images to calibrate on, the first ones.
    """

    mode: Mode = "light"
    images: int = 256

    needs_source: ClassVar[bool] = True

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Converts a network that is not trained."""
        check_mean_readout(run.setting)
        network = twin(check_source(run, source).setting.model, task)
        calibrate(network.eval(), [task.first_images(self.images)[:2]], run.setting.model.time_steps, self.mode)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Takes the source's weights over, and measures how long a conversion takes."""
        task, source = Task.of(dataset), read_run(run.source_folder)
        weights = kept_weights(source)
        save_weights(run, weights)
        start = time.perf_counter()
        self.network(run, weights, task)
        return Fitted(time.perf_counter() - start, source_accuracy=source.read_result()["test_accuracy"])

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The source, calibrated for T steps."""
        steps = run.setting.model.time_steps if time_steps is None else time_steps
        images = task.first_images(self.images).split(TOGETHER)
        return calibrate(trained_twin(run, weights, task), images, steps, self.mode)
