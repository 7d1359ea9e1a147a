"""A spiking network that a trained one without spikes teaches, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from tracegrad.lab.data import Dataset
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.procedures.direct import Direct
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.relu import check_mean_readout, check_source, trained_twin, twin
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.checkpoints import kept_weights
from tracegrad.lab.runs.run import Run, read_run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.methods.tandem import Mode, TandemLearning


@dataclass(frozen=True)
class Tandem(Procedure):
    """Local tandem learning (Yang et al. 2022).

    Args:
        mode: "offline" teaches by mean firing rates, "online" by running means, without back-propagation through time.
    """

    mode: Mode = "offline"

    needs_source: ClassVar[bool] = True

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds student and teacher."""
        check_mean_readout(run.setting)
        teacher = check_source(run, source)
        student = build_model(run.setting.model, task.classes, task.channels)
        TandemLearning(student, twin(teacher.setting.model, task), self.mode)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the student."""
        task, source = Task.of(dataset), read_run(run.source_folder)
        student = build_model(run.setting.model, task.classes, task.channels)
        teacher = trained_twin(source, kept_weights(source), task)
        tandem = TandemLearning(student, teacher, self.mode)

        def batch_loss(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            teacher.to(images.device)
            losses = tandem.losses(images, targets)
            return losses.total, losses.outputs

        trained = fit(run, student, dataset, watch, batch_loss)
        return replace(trained, source_accuracy=source.read_result()["test_accuracy"])

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained student."""
        return Direct().network(run, weights, task, time_steps)
