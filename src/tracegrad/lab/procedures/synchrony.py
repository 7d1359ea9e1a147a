"""A spiking network trained by back-propagation through time, and by the synchrony of spikes after each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.lab.values import require
from tracegrad.methods.synchrony import SynchronyPlasticity


@dataclass(frozen=True)
class Synchrony(Procedure):
    """DA-SSDP (Tian et al. 2025); the options are those of `tracegrad.methods.synchrony.SynchronyPlasticity`.

    Args:
        synapses: linear layers that change, each with its neurons or null.
        warm_up: share of the training in which the gate alone learns, the paper's by default.
        a_plus: change where both ends fire.
        a_minus: change, downwards, where they do not.
        sigma: of the Gaussian over latencies, in time steps.
    """

    synapses: dict[str, str | None] = field(default_factory=lambda: {"classifier": None})
    warm_up: float = 1 / 6
    a_plus: float = 1.5e-3
    a_minus: float = 5e-4
    sigma: float = 1.0

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the network, and what listens to it."""
        super().check(run, task, source)
        require(0 <= self.warm_up <= 1, "options.warm_up", "from 0 to 1", self.warm_up)
        training = run.setting.training
        require(training.devices * training.nodes == 1, "training.devices of kind synchrony", "1", training.devices)
        self._plasticity(self.build(run, task), 0)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains."""
        task, training = Task.of(dataset), run.setting.training
        model = self.build(run, task)
        steps = training.epochs * len(Batches(dataset.train, training.batch_size, dataset=dataset, seed=run.seed))
        with self._plasticity(model, round(self.warm_up * steps)) as plasticity:
            return fit(run, model, dataset, watch, after_step=plasticity.step)

    def _plasticity(self, model: nn.Module, warm_up: int) -> SynchronyPlasticity:
        return SynchronyPlasticity(model, self.synapses, warm_up, self.a_plus, self.a_minus, self.sigma)
