"""A spiking network trained by back-propagation through time, with or without gradient scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from tracegrad.lab.build import attach_method, build_model
from tracegrad.lab.checkpoints import BEST, load_weights
from tracegrad.lab.data import Dataset
from tracegrad.lab.fitting import Fitted, fit
from tracegrad.lab.kinds.kind import Kind
from tracegrad.lab.runs import Run
from tracegrad.lab.task import Task


@dataclass(frozen=True)
class Direct(Kind):
    """Surrogate gradients through the spiking network itself (STBP)."""

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the network and attaches the scaling."""
        attach_method(run.method, build_model(run.setting.model, task.classes, task.channels), task)

    def fit(self, run: Run, dataset: Dataset, callbacks: Sequence[Callback]) -> Fitted:
        """Trains."""
        task = Task.of(dataset)
        model = build_model(run.setting.model, task.classes, task.channels)
        attachment = attach_method(run.method, model, task)
        trained = fit(run, model, dataset, callbacks)
        pairs = attachment.pairs if attachment else []
        return replace(trained, pairs=pairs)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained network."""
        options = run.setting.model
        steps = options.time_steps if time_steps is None else time_steps
        network = build_model(replace(options, time_steps=steps), task.classes, task.channels)
        load_weights(network, weights, run.checkpoints / BEST)
        return network.eval()
