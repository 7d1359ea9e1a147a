"""A twin without spikes that is trained for its conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from tracegrad.lab.data import Dataset
from tracegrad.lab.evaluate import evaluate_split
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.relu import check_mean_readout, trained_twin, twin
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.checkpoints import kept_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.methods.qcfs import QCFS, convert_qcfs


@dataclass(frozen=True)
class Qcfs(Procedure):
    """SNN-aware training (Bu et al. 2022): trained with quantised activations, measured as spiking network.

    Args:
        levels: L of the activations.
        start: their lambda before training.
    """

    levels: int = 4
    start: float = 8.0

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the twin, and converts it."""
        check_mean_readout(run.setting)
        example = task.first_images(1)
        convert_qcfs(twin(run.setting.model, task, self._activation), run.setting.model.time_steps, example)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the twin; its own accuracy is the source's."""
        task = Task.of(dataset)
        trained = fit(run, twin(run.setting.model, task, self._activation), dataset, watch)
        best = self.without_spikes(run, kept_weights(run), task)
        accuracy = evaluate_split(best, dataset.test, run.setting, dataset).accuracy
        return replace(trained, validation_accuracy=None, source_accuracy=accuracy)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained twin, converted."""
        steps = run.setting.model.time_steps if time_steps is None else time_steps
        return convert_qcfs(self.without_spikes(run, weights, task), steps)

    def without_spikes(self, run: Run, weights: Mapping[str, Tensor], task: Task) -> nn.Module:
        """The trained twin itself: what the conversion starts from."""
        return trained_twin(run, weights, task, self._activation)

    @property
    def _activation(self) -> partial[QCFS]:
        return partial(QCFS, self.levels, self.start)
