"""A spiking network trained by back-propagation through time, with or without gradient scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tracegrad.lab.data import Dataset
from tracegrad.lab.procedures.build import attach_method, build_model, check_outputs
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.checkpoints import load_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit


@dataclass(frozen=True)
class Direct(Procedure):
    """Surrogate gradients through the spiking network itself (STBP)."""

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the network and attaches the scaling."""
        model = build_model(run.setting.model, task.classes, task.channels)
        check_outputs(model, run.setting.model, task.first_images(2), task.classes)
        attach_method(run.method, model, task)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains."""
        task = Task.of(dataset)
        model = build_model(run.setting.model, task.classes, task.channels)
        training = run.setting.training
        attachment = attach_method(run.method, model, task, seed=run.seed, sync=training.devices * training.nodes > 1)
        trained = fit(run, model, dataset, watch, attachment=attachment)
        pairs = attachment.pairs if attachment else []
        return replace(trained, pairs=pairs)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained network."""
        options = run.setting.model
        steps = options.time_steps if time_steps is None else time_steps
        network = build_model(replace(options, time_steps=steps), task.classes, task.channels)
        load_weights(network, weights, run.weights)
        return network.eval()
