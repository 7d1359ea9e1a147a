"""Where a training is: all that the rest of it depends on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attachment import Attachment
from tracegrad.lab.files import write_rows
from tracegrad.lab.runs.checkpoints import LAST, PREVIOUS, latest_checkpoint, load_weights, write_checkpoint
from tracegrad.lab.runs.run import Run
from tracegrad.lab.runs.tensorboard import write_events
from tracegrad.measure.relations import STATISTICS

METRICS = ("epoch", "train_loss", "train_accuracy", "validation_accuracy", "learning_rate", "seconds")
RELATIONS = ("epoch", "synapse", "quantity", *STATISTICS)


@dataclass
class State:
    """A training, between two of its steps.

    Args:
        run: what is trained.
        epoch: whole epochs done.
        step: steps done of the next one.
        loss: sum of the losses of the images of these steps.
        right: how many of these images were classified right.
        seen: how many there are.
        seconds: that these steps took.
        rows: of metrics.csv, one per epoch.
        relations: rows of relations.csv.
        best_accuracy: validation accuracy of `best_weights`.
        best_weights: those to be tested so far, as a `state_dict`.
        saved: whole epochs in the last checkpoint.
    """

    run: Run
    epoch: int = 0
    step: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    right: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    seen: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    relations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    best_accuracy: float = 0.0
    best_weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    saved: int = 0

    @classmethod
    def latest(
        cls, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, attachment: Attachment | None = None
    ) -> State:
        """The state of the latest checkpoint, and with it that of what is trained and of random numbers; or the start.

        Raises:
            ValueError: all checkpoints are damaged, or those of another network.
        """
        latest = latest_checkpoint(run)
        if latest is None:
            return cls(run)
        path, checkpoint = latest
        load_weights(model, checkpoint["model"], path)
        try:
            optimizer.load_state_dict(checkpoint["optimizer"])
            if attachment is not None:
                attachment.load_state_dict(checkpoint["attachment"])
            state = cls(run, **checkpoint["state"], saved=checkpoint["state"]["epoch"])
            if state.step:
                _set_random_state(checkpoint["random"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged ({shorten(str(error), 80)})") from None
        return state

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, attachment: Attachment | None = None) -> None:
        """Writes the checkpoint, and keeps the one before it.

        Raises:
            OSError: the folder cannot be written to.
        """
        own = {name: value for name, value in vars(self).items() if name not in ("run", "saved")}
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": _random_state()}
        scaling = None if attachment is None else attachment.state_dict()
        content = {**parts, "attachment": scaling, "state": own, "epoch": self.epoch}
        write_checkpoint(self.run.checkpoints / LAST, content, keep=self.run.checkpoints / PREVIOUS)
        self.saved = self.epoch

    def count(self, loss: Tensor, right: Tensor, images: int) -> None:
        """Adds a step to the metrics of the epoch."""
        self.loss = self.loss.to(loss.device) + loss.float() * images
        self.right = self.right.to(right.device) + right
        self.seen += images

    def end_epoch(self, accuracy: float, rate: float, seconds: float, model: nn.Module, keep: str) -> None:
        """Adds the row of an epoch, and keeps the weights to be tested.

        Of equally good epochs the latest is the best: small validation parts give many equal accuracies, and later
        epochs, at lower learning rates, are the safer choice.
        """
        loss, right = float(self.loss / self.seen), int(self.right) / self.seen
        values = (self.epoch + 1, loss, right, accuracy, rate, self.seconds + seconds)
        self.rows.append(dict(zip(METRICS, values, strict=True)))
        if keep == "final" or accuracy >= self.best_accuracy:
            self.best_accuracy = accuracy
            self.best_weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self.epoch, self.step = self.epoch + 1, 0
        self.loss, self.right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        self.seen, self.seconds = 0, 0.0

    def write_logs(self) -> None:
        """Writes metrics.csv, relations.csv and, where it is installed, TensorBoard's file."""
        if self.rows:
            write_rows(self.run.folder / "metrics.csv", METRICS, self.rows)
            write_events(self.run.folder / "tensorboard", self.rows, METRICS[1:])
        if self.relations:
            write_rows(self.run.folder / "relations.csv", RELATIONS, self.relations)


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
