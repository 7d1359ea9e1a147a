"""What every procedure can do: the ways in which a network comes about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split, batch_dim
from tracegrad.lab.evaluate import Evaluation, evaluate_split
from tracegrad.lab.procedures.build import Task, attach_method, build_model
from tracegrad.lab.recipe.code import is_code
from tracegrad.lab.runs.checkpoints import load_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.measure.energy import Operations, measure_operations


class Procedure:
    """How the network of a run comes about. Its fields are the options of the method.

    As it stands, it is of kind "direct": the recipe's network is trained by gradients (STBP), with or without gradient
    scaling, and measured as it is then.
    """

    needs_source: ClassVar[bool] = False
    """Whether it starts from the network of another run."""

    def build(self, run: Run, task: Task, time_steps: int | None = None) -> nn.Module:
        """The network that is trained, with new weights, for T time steps; the recipe's by default."""
        options = run.setting.model
        if time_steps is not None:
            options = replace(options, time_steps=time_steps)
        return build_model(options, task.classes, task.channels)

    def trained(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The network that was trained, in evaluation mode; arguments and errors as for `network`."""
        network = self.build(run, task, time_steps)
        load_weights(network, weights, run.weights)
        return network.eval()

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds everything once, so that what does not fit fails before anything is trained.

        Args:
            run: what is to be trained.
            task: what it is to learn.
            source: the run that its method names, trained or not.

        Raises:
            ValueError: the run's recipe does not fit the kind, or its source.
        """
        model = self.build(run, task)
        images, name = task.first_images(2), run.setting.model.name
        if is_code(name):
            with torch.no_grad():
                outputs: object = model(images)
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            right = [self.time_steps(run), images.shape[batch_dim(images)], task.classes]
            if shape != right:
                given = f"{name} makes {shape} of images {list(images.shape)}"
                raise ValueError(f"{given}; right is [T, B, classes], {right}")
        attach_method(run.method, model, task)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains or converts, and leaves the weights in the run.

        Raises:
            ValueError, OSError, KeyboardInterrupt: as `tracegrad.lab.studies.train_run.train_run`.
        """
        task, training = Task.of(dataset), run.setting.training
        model = self.build(run, task)
        attachment = attach_method(run.method, model, task, seed=run.seed, sync=training.devices * training.nodes > 1)
        fitted = fit(run, model, dataset, watch, attachment=attachment)
        return replace(fitted, pairs=attachment.pairs if attachment else [])

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The network that is measured, images [B, C, H, W] -> outputs [T, B, classes], in evaluation mode.

        Args:
            run: of this kind.
            weights: of the run.
            task: what it learned.
            time_steps: T; the recipe's by default.

        Raises:
            ValueError: the weights are those of another network, or T does not fit.
        """
        return self.trained(run, weights, task, time_steps)

    def time_steps(self, run: Run) -> int:
        """T of the network that is measured."""
        return run.setting.model.time_steps

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Measures a network on a part of the data.

        Args:
            run: of this kind.
            network: its network.
            split: the part, without augmentation.
            dataset: what `split` is a part of.
        """
        return evaluate_split(network, split, run.setting, dataset)

    def operations(self, network: nn.Module, images: Tensor) -> Operations | None:
        """What all synapses of a network do for one image, a mean over some; None for networks that are not counted.

        Args:
            network: of this kind.
            images: [B, C, H, W].
        """
        return sum(measure_operations(network, images).values(), start=Operations())
