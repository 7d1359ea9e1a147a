"""Networks without spikes, and what spiking ones take from them: conversions, and learning from a teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation, evaluate_split
from tracegrad.lab.procedures.build import Task, build_model
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.runs.checkpoints import kept_weights, save_weights
from tracegrad.lab.runs.run import Run, read_run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.methods import calibration, tandem
from tracegrad.methods.objectives import OBJECTIVES, mean_over_time
from tracegrad.methods.qcfs import QCFS, convert_qcfs, count_levels

SHARED = ("data.name", "data.train_size", "model.name", "model.options")
"""The fields that a run and its source must have in common."""
TOGETHER = 64  # images to calibrate on, for all of their time steps are in memory at once


class Twin(Procedure):
    """A network without spikes of the same topology and norms: activations instead of neurons, and one time step."""

    @property
    def activation(self) -> Callable[[], nn.Module]:
        """What makes an activation."""
        return nn.ReLU

    def build(self, run: Run, task: Task, time_steps: int | None = None) -> nn.Module:
        """The twin, with new weights."""
        check_mean_readout(run.setting)
        return build_model(replace(run.setting.model, time_steps=1), task.classes, task.channels, self.activation)


@dataclass(frozen=True)
class Relu(Twin):
    """A twin of rectified linear units: the source of conversions, and what they can reach."""

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained twin: it has one time step."""
        if time_steps not in (None, 1):
            raise ValueError(f"a network without spikes has one time step, not {time_steps}")
        return self.trained(run, weights, task)

    def time_steps(self, run: Run) -> int:
        """One: nothing changes over time."""
        return 1


@dataclass(frozen=True)
class QuantizedTwin(Twin):
    """A twin of quantised activations (Bu et al. 2022), clipped between 0 and lambda.

    Args:
        levels: L of the activations; the 4 levels of 3 are 2 bits.
        start: their lambda before training.
    """

    levels: int = 4
    start: float = 8.0

    @property
    def activation(self) -> partial[QCFS]:
        """What makes an activation."""
        return partial(QCFS, self.levels, self.start)


@dataclass(frozen=True)
class Quantized(QuantizedTwin, Relu):
    """The twin, measured as it is, without time steps and spikes: the rival of every spike count.

    Its spike count is the sum of the activations' levels, 0 to `levels`: an activation of level k is worth k spikes, as
    many as the neuron fires that it could be converted to. Options as of `QuantizedTwin`.
    """

    levels: int = 3

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Measures the twin; its levels are its spikes."""
        with count_levels(network) as levels:
            measured = evaluate_split(network, split, run.setting, dataset)
        images = len(split)
        return replace(
            measured,
            spikes_per_image=levels.total / images,
            spikes_per_layer={name: count / images for name, count in levels.per_layer.items()},
            neurons_per_layer={name: number // images for name, number in levels.activations.items()},
        )


@dataclass(frozen=True)
class Qcfs(QuantizedTwin):
    """SNN-aware training: the twin is trained, and measured as a spiking network. Options as of `QuantizedTwin`."""

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the twin, and converts it."""
        convert_qcfs(self.build(run, task), run.setting.model.time_steps, task.first_images(1))

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the twin; its own accuracy is the source's."""
        fitted = super().fit(run, dataset, watch)
        best = self.trained(run, kept_weights(run), Task.of(dataset))
        accuracy = evaluate_split(best, dataset.test, run.setting, dataset).accuracy
        return replace(fitted, validation_accuracy=None, source_accuracy=accuracy)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained twin, converted."""
        steps = self.time_steps(run) if time_steps is None else time_steps
        return convert_qcfs(self.trained(run, weights, task), steps)


@dataclass(frozen=True)
class Calibration(Twin):
    """Conversion with calibration (Li et al. 2021). Its checkpoint is the source's: it is converted where it is used.

    Args:
        mode: "light" calibrates biases, "advanced" the membranes at the start, too.
        images: training images to calibrate on, the first ones.
    """

    mode: calibration.Mode = "light"
    images: int = 256

    needs_source: ClassVar[bool] = True

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Converts a network that is not trained."""
        check_source(run, source)
        images, steps = [task.first_images(self.images)[:2]], run.setting.model.time_steps
        calibration.calibrate(self.build(run, task).eval(), images, steps, self.mode)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Takes the source's weights over, and measures how long a conversion takes."""
        source = read_run(run.source_folder)
        weights = kept_weights(source)
        save_weights(run, weights)
        start = time.perf_counter()
        self.network(run, weights, Task.of(dataset))
        return Fitted(time.perf_counter() - start, source_accuracy=source.read_result()["test_accuracy"])

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The source, calibrated for T steps."""
        steps = self.time_steps(run) if time_steps is None else time_steps
        images = task.first_images(self.images).split(TOGETHER)
        return calibration.calibrate(self.trained(run, weights, task), images, steps, self.mode)


@dataclass(frozen=True)
class Tandem(Procedure):
    """Local tandem learning (Yang et al. 2022): a trained twin teaches a spiking network, layer by layer.

    Args:
        mode: "offline" teaches by mean firing rates, "online" by running means, without back-propagation through time.
    """

    mode: tandem.Mode = "offline"

    needs_source: ClassVar[bool] = True

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds student and teacher."""
        check_mean_readout(run.setting)
        teacher = Relu().build(check_source(run, source), task)
        tandem.TandemLearning(self.build(run, task), teacher, self.mode)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the student."""
        task, source = Task.of(dataset), read_run(run.source_folder)
        student = self.build(run, task)
        teacher = Relu().trained(source, kept_weights(source), task)
        learning = tandem.TandemLearning(student, teacher, self.mode)

        def batch_loss(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            teacher.to(images.device)
            losses = learning.losses(images, targets)
            return losses.total, losses.outputs

        fitted = fit(run, student, dataset, watch, batch_loss)
        return replace(fitted, source_accuracy=source.read_result()["test_accuracy"])


def check_mean_readout(setting: Recipe) -> None:
    """Checks that the scores are the outputs' mean over time: the only ones that a network without time has, too.

    Raises:
        ValueError: they are something else.
    """
    if OBJECTIVES[setting.objective].readout is not mean_over_time:
        raise ValueError(
            f"objective {setting.objective} reads more than the mean over time; networks without spikes, conversions "
            "and tandem learning need one that does not, such as mean_cross_entropy"
        )


def check_source(run: Run, source: Run | None) -> Run:
    """The source of a run, the twin of its network.

    Raises:
        ValueError: it is of another kind, or has another network or other data.
    """
    if source is None or source.method.kind != "relu":
        kind = "none" if source is None else f"{source.method.kind!r}"
        raise ValueError(f"the source of method {run.name!r} must be of kind 'relu', not {kind}")
    for field in SHARED:
        section, name = field.split(".")
        here, there = (getattr(getattr(each.setting, section), name) for each in (run, source))
        if here != there:
            raise ValueError(
                f"method {run.name!r} and its source {source.name!r} must have the same {field}, not {here} and {there}"
            )
    return source
