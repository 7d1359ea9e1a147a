"""What is logged while a network is trained."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tracegrad.lab.files import write_rows

COLUMNS: tuple[str, ...] = ("epoch", "train_loss", "train_accuracy", "validation_accuracy", "learning_rate", "seconds")


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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the file to the state of the checkpoint from which the training goes on."""
        if self.rows:
            write_rows(self.path, COLUMNS, self.rows)

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
        write_rows(self.path, COLUMNS, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


class TensorBoardLog(Callback):
    """Writes the rows of an `EpochLog` for TensorBoard, too; needs the package tensorboard.

    Args:
        log: the rows; it must come before this one in the trainer's list.
        folder: for TensorBoard's files.
    """

    def __init__(self, log: EpochLog, folder: Path) -> None:
        self._epoch_log = log
        self._folder = folder
        self._open = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens a file; what an interrupted sitting wrote of epochs that are repeated now is not shown."""
        from torch.utils.tensorboard import SummaryWriter

        first = len(self._epoch_log.rows) + 1
        self._writer = self._open.enter_context(SummaryWriter(str(self._folder), purge_step=first))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the row of the epoch."""
        row = self._epoch_log.rows[-1]
        for name in COLUMNS[1:]:
            self._writer.add_scalar(name, row[name], int(row["epoch"]))
        self._writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the file."""
        self._open.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the file."""
        self._open.close()
