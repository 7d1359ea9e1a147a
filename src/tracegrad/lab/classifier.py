"""A spiking classifier as Lightning trains it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor, nn

from tracegrad.lab.data import Batches
from tracegrad.lab.evaluation import predict
from tracegrad.lab.recipe import Training
from tracegrad.methods.objectives import OBJECTIVES


def learning_rate(training: Training, epoch: int) -> float:
    """The learning rate of an epoch (counted from 0).

    It depends on nothing but the epoch, so a resumed run goes on with it exactly.
    """
    if training.schedule == "cosine":
        return training.learning_rate * (1 + math.cos(math.pi * epoch / training.epochs)) / 2
    return training.learning_rate * training.decay_factor ** (epoch // training.decay_every)


Lesson = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images [B, C, H, W] and targets -> the loss, and the outputs [T, B, classes] of the network that learns."""


class SpikingClassifier(lightning.LightningModule):
    """Trains a network and logs train_loss, train_accuracy and validation_accuracy of each epoch.

    Args:
        model: images [B, C, H, W] -> outputs [T, B, classes].
        objective: name of the loss.
        training: how to train.
        seed: of the run.
        lesson: what a batch teaches; by default the objective of the model's outputs.

    Raises:
        ValueError: in training, if images or the loss hold NaN or infinity.
    """

    def __init__(
        self, model: nn.Module, objective: str, training: Training, seed: int, lesson: Lesson | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = OBJECTIVES[objective]
        self.training_options = training
        self.seed = seed
        self._lesson = lesson or self._by_objective
        self._right, self._seen = torch.zeros((), dtype=torch.int64), 0

    def forward(self, images: Tensor) -> Tensor:
        """Outputs [T, B, classes] for images [B, C, H, W]."""
        return self.model(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch; targets are classes [B] or probabilities [B, classes]."""
        images, targets = batch
        where = f"in epoch {self.current_epoch + 1}, step {index + 1}"
        if not images.isfinite().all():
            raise ValueError(f"the images {where} hold NaN or infinity; mend the data set")
        loss, outputs = self._lesson(images, targets)
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item():g} {where}; lower training.learning_rate")
        labels = targets.argmax(-1) if targets.dim() == 2 else targets
        accuracy = (predict(outputs.detach(), self.objective.readout) == labels).float().mean()
        metrics = {"train_loss": loss.detach().float(), "train_accuracy": accuracy}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def _by_objective(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model(images)
        return self.objective(outputs, targets), outputs

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Counts what is right in a batch."""
        images, labels = batch
        self._right += (predict(self.model(images), self.objective.readout) == labels).sum()
        self._seen += len(images)

    def on_validation_epoch_start(self) -> None:
        """Starts to count."""
        self._right, self._seen = torch.zeros((), dtype=torch.int64, device=self.device), 0

    def on_validation_epoch_end(self) -> None:
        """Logs the accuracy: whole numbers divided, so that equal accuracies are equal to the bit."""
        self.log("validation_accuracy", self._right / self._seen)

    def on_train_epoch_start(self) -> None:
        """Sets the epoch's learning rate, order of images, and random numbers of layers such as dropout."""
        epoch_seed = np.random.SeedSequence(self.seed, spawn_key=(self.current_epoch,)).generate_state(1)
        torch.manual_seed(int(epoch_seed[0]))
        batches = cast(Batches, self.trainer.train_dataloader)
        batches.set_epoch(self.current_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(self.training_options, self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over all parameters that are trained."""
        options = self.training_options
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        shared: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
        if options.optimizer == "adam":
            return torch.optim.Adam(parameters, betas=(options.momentum, 0.999), **shared)
        return torch.optim.SGD(parameters, momentum=options.momentum, **shared)
