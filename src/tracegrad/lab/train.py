"""Trains a network by gradients: one loop, replayed to the bit from any of its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attachment import Attachment
from tracegrad.core.equations.alpha import AlphaSchedule
from tracegrad.lab.data import Batches, Dataset, batch_dim
from tracegrad.lab.data.batches import seed_of
from tracegrad.lab.evaluate import predict
from tracegrad.lab.probe import probe
from tracegrad.lab.ranks import agree, rank, slice_of, start, synchronised, total, world_size
from tracegrad.lab.recipe.parts import Training
from tracegrad.lab.runs.checkpoints import Interval, save_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.runs.state import State
from tracegrad.methods.firing_rate import firing_rate
from tracegrad.methods.objectives import OBJECTIVES

BatchLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images [B, C, H, W] and targets -> the loss, and the outputs [T, B, classes] of the network that learns."""
AfterStep = Callable[[torch.optim.Optimizer, Tensor], None]
"""The optimizer and the loss of the batch, after the optimizer's step."""


class DivergenceError(ValueError):
    """The loss or the weights of a training hold NaN or infinity."""


@dataclass(frozen=True)
class Fitted:
    """How a network came about; its weights are in the run's checkpoints.

    Args:
        seconds: of training or conversion.
        epochs: of training; 0 for a conversion.
        pairs: synapses and neurons between which gradients were scaled.
        validation_accuracy: of the weights, 0 to 1; None where another network is measured than trained.
        source_accuracy: test accuracy of the network without spikes that was converted or taught, 0 to 1.
    """

    seconds: float
    epochs: int = 0
    pairs: Sequence[tuple[str, str]] = ()
    validation_accuracy: float | None = None
    source_accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class Moment:
    """What a watcher sees: the start of a training, and every step of it.

    Args:
        state: of the training, `state.epoch` whole epochs and `state.step` steps of the next one.
        share: of the training that is done, 0 to 1.
        model: the network.
        batch: images and targets of the step; None at the start.
    """

    state: State
    share: float
    model: nn.Module
    batch: tuple[Tensor, Tensor] | None = None


Watch = Callable[[Moment], None]


def fit(
    run: Run,
    model: nn.Module,
    dataset: Dataset,
    watch: Watch | None = None,
    batch_loss: BatchLoss | None = None,
    after_step: AfterStep | None = None,
    attachment: Attachment | None = None,
) -> Fitted:
    """Trains a network; goes on from the latest checkpoint in the run's folder.

    Args:
        run: names objective, training and seed, and where checkpoints and metrics.csv are written.
        model: images [B, C, H, W] -> outputs [T, B, classes].
        dataset: the data.
        watch: is called at the start and after every step.
        batch_loss: what a batch teaches, instead of the objective.
        after_step: changes weights after each step; what it keeps is in the optimizer's state.
        attachment: of gradient scaling to the model.

    Raises:
        ValueError: damaged checkpoints, or those of another network; NaN in images.
        DivergenceError: NaN or infinity in loss or weights.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: Ctrl-C.
    """
    loop = _Loop(run, model, dataset, watch, batch_loss, after_step, attachment)
    state, training = loop.state, loop.training
    try:
        state.write_logs()  # as they were then
        loop.show(None)
        while state.epoch < training.epochs:
            loop.train_epoch()
            loop.end_epoch()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{run.label}: {state.saved} of {training.epochs} epochs are saved") from None
    except ValueError as error:
        kind = DivergenceError if isinstance(error, DivergenceError) else ValueError
        raise kind(f"{run.label}: {error}") from error
    save_weights(run, state.best_weights)
    agree(None)  # now they are there for all processes
    seconds = sum(row["seconds"] for row in state.rows)
    return Fitted(seconds, training.epochs, validation_accuracy=state.best_accuracy)


@dataclass(eq=False)
class _Loop:
    """The loop of one training.

    Every random draw depends on seed, epoch and step alone, or on the random state that checkpoints keep.
    """

    run: Run
    model: nn.Module
    dataset: InitVar[Dataset]
    watch: Watch | None
    batch_loss: BatchLoss | None
    after_step: AfterStep | None
    attachment: Attachment | None

    def __post_init__(self, dataset: Dataset) -> None:
        run, model, setting = self.run, self.model, self.run.setting
        self.training = setting.training
        self.fabric = start(self.training.precision, self.training.devices, self.training.nodes)
        if self.batch_loss and world_size() > 1:
            kind = run.method.kind
            raise ValueError(f"a method of kind {kind} is trained by one process; leave training.devices at 1")
        self.dtype = torch.float64 if self.training.precision == "fp64" else None
        self.optimizer = _optimizer(model.to(self.fabric.device, self.dtype), self.training)
        self.state = State.latest(run, model, self.optimizer, self.attachment)
        self.joint, self.objective = synchronised(model), OBJECTIVES[setting.objective]
        size, options = self.training.batch_size, setting.data
        self.batches = Batches(dataset.train, size, dataset=dataset, seed=run.seed, options=options, shuffle=True)
        self.validation = Batches(dataset.validation, size, dataset=dataset, seed=run.seed)
        self.interval = Interval(self.training.checkpoint_every)
        epochs = run.method.alpha_epochs or self.training.epochs
        self.alpha = AlphaSchedule(run.method.alpha_schedule, run.method.alpha, epochs * len(self.batches))

    def show(self, batch: tuple[Tensor, Tensor] | None) -> None:
        """Shows the watcher a moment."""
        if self.watch:
            done = self.state.epoch + self.state.step / len(self.batches)
            self.watch(Moment(self.state, done / self.training.epochs, self.model, batch))

    def train_epoch(self) -> None:
        """Trains the rest of an epoch, from the step at which the state is."""
        state, begun = self.state, time.perf_counter() - self.state.seconds
        if state.step == 0:
            torch.manual_seed(seed_of(self.run.seed, state.epoch))  # for what layers such as dropout draw
        self.batches.set_epoch(state.epoch, state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, state.epoch)
        self.model.train()
        for batch in self.batches:
            self._step(*batch)
            state.step += 1
            state.seconds = time.perf_counter() - begun
            if self.interval.is_over() and state.step < len(self.batches):
                state.save(self.model, self.optimizer, self.attachment)
            self.show(batch)

    def _step(self, images: Tensor, targets: Tensor) -> None:
        where = f"in epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        if not images.isfinite().all():
            raise ValueError(f"the images {where} hold NaN or infinity; mend the data set")
        number, processes = len(targets), world_size()
        images = self._placed(slice_of(images, batch_dim(images)))
        targets = self.fabric.to_device(slice_of(targets))
        with self.fabric.autocast():
            loss, outputs = (self.batch_loss or self._objective)(images, targets)
        if processes > 1:  # the mean over the processes is that over the batch
            loss = loss * (len(targets) * processes / number)
        mean = total(loss.detach()) / processes
        if not mean.isfinite():
            raise DivergenceError(f"the loss is {mean.item():g} {where}; lower training.learning_rate")
        if self.attachment is not None:
            self.attachment.alpha = self.alpha(self.state.epoch * len(self.batches) + self.state.step)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        if self.after_step:
            self.after_step(self.optimizer, loss.detach())
        labels = targets.argmax(-1) if targets.dim() == 2 else targets
        right = (predict(outputs.detach(), self.objective.readout) == labels).sum()
        self.state.count(mean, total(right), number)

    def _objective(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training.rate_penalty:
            outputs = self.joint(images)
            return self.objective(outputs, targets), outputs
        with firing_rate(self.model) as rate:
            outputs = self.joint(images)
        return self.objective(outputs, targets) + self.training.rate_penalty * rate.mean, outputs

    def end_epoch(self) -> None:
        """Measures, logs and saves what the epoch led to."""
        state, begun = self.state, time.perf_counter()
        self._check_weights()
        accuracy = self._validate()
        images = self._placed(next(iter(self.validation))[0])
        with self.fabric.autocast():
            alpha = self.alpha((state.epoch + 1) * len(self.batches))
            state.relations += probe(self.run, self.model, images, alpha, state.epoch + 1)
        rate = self.optimizer.param_groups[0]["lr"]
        state.end_epoch(accuracy, rate, time.perf_counter() - begun, self.model, self.training.keep)
        state.write_logs()
        state.save(self.model, self.optimizer, self.attachment)
        self.interval.begin()

    @torch.inference_mode()
    def _validate(self) -> float:
        self.model.eval()
        right = torch.zeros((), dtype=torch.int64)
        for number, (images, labels) in enumerate(self.validation):
            if number % world_size() == rank():
                with self.fabric.autocast():
                    predicted = predict(self.model(self._placed(images)), self.objective.readout)
                right = right.to(predicted.device) + (predicted == labels.to(predicted.device)).sum()
        return int(total(right)) / len(self.validation.split)

    def _placed(self, images: Tensor) -> Tensor:
        """Images on the device and in the precision of the model."""
        return images.to(self.fabric.device, self.dtype)

    def _check_weights(self) -> None:
        """NaN in a membrane never fires, so that the loss can stay finite: weights and buffers are looked at, too."""
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise DivergenceError(
                    f"{name} holds NaN or infinity after epoch {self.state.epoch + 1}; lower training.learning_rate"
                )


def learning_rate(training: Training, epoch: int) -> float:
    """The learning rate of an epoch (counted from 0).

    It depends on nothing but the epoch, so a resumed run goes on with it exactly.
    """
    if training.schedule == "cosine":
        return training.learning_rate * (1 + math.cos(math.pi * epoch / training.epochs)) / 2
    return training.learning_rate * training.decay_factor ** (epoch // training.decay_every)


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer over all parameters that are trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, betas=(training.momentum, 0.999), **shared)
    return torch.optim.SGD(parameters, momentum=training.momentum, **shared)
