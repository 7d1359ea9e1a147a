"""What happens beside the training: the log of epochs, and the checkpoints."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from tracegrad.lab.files import write

COLUMNS: tuple[str, ...] = ("epoch", "train_loss", "train_accuracy", "validation_accuracy", "learning_rate", "seconds")


class Checkpoints(ModelCheckpoint):
    """Keeps the best epoch by validation accuracy, the latest of equals, as best.ckpt and the last one as last.ckpt.

    Small validation parts give many equal accuracies, and later epochs, at lower learning rates, are the safer choice.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "best",
            monitor="validation_accuracy",
            mode="max",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether `current` is at least as good as the best so far."""
        return current is not None and (self.best_model_score is None or bool(current >= self.best_model_score))


class EpochLog(Callback):
    """Writes one row per epoch to a CSV file; the rows are part of every checkpoint.

    Epochs count from 1; accuracies are shares, 0 to 1; seconds are those of the epoch, validation included.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row of the epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.perf_counter() - self._start,
            **metrics,
        }
        self.rows.append({column: row[column] for column in COLUMNS})
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write(self.path, text.getvalue())
