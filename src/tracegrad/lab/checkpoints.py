"""Checkpoints: written whole, read with care, and the place from which an interrupted run goes on."""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from tracegrad.lab.files import write
from tracegrad.lab.runs import Run

BEST, LAST = "best.ckpt", "last.ckpt"
log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it; Lightning's own way copies from another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint, whole or not at all."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write(Path(path), content.getvalue())


class Checkpoints(Checkpoint):
    """Keeps the best epoch by validation accuracy, the latest of equals, as best.ckpt and the last one as last.ckpt.

    Small validation parts give many equal accuracies, and later epochs, at lower learning rates, are the safer choice.
    The best one is written first: with the last one of an epoch, the best one up to this epoch is always there.

    Args:
        folder: of the checkpoints.
        epochs: number of epochs that last.ckpt has behind it already.
    """

    def __init__(self, folder: Path, epochs: int = 0) -> None:
        self.folder = folder
        self.epochs = epochs
        self.best_accuracy = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoints of the epoch."""
        accuracy = float(trainer.callback_metrics["validation_accuracy"])
        if accuracy >= self.best_accuracy:
            self.best_accuracy = accuracy
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)
        self.epochs = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """The best validation accuracy so far."""
        return {"best_accuracy": self.best_accuracy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after a checkpoint."""
        self.best_accuracy = state_dict["best_accuracy"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU; the checksums of its contents are verified.

    Raises:
        ValueError: the file is damaged, or holds something else.
        OSError: it is missing or cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad:
            raise ValueError(f"wrong checksum of {bad}")  # noqa: TRY301
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {"state_dict", "epoch"} <= checkpoint.keys():
            raise ValueError("no checkpoint of a run")  # noqa: TRY301
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise ValueError(f"{path} is damaged ({reason})") from None
    return checkpoint


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from: the last one, or the best one if the last one is damaged; None if there is none.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    paths = [path for path in (folder / LAST, folder / BEST) if path.is_file()]
    damages: list[str] = []
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            damages.append(str(error))
            continue
        if damages:
            log.warning("%s; going on from %s, epoch %d", damages[0], path.name, checkpoint["epoch"] + 1)
        return path, checkpoint
    if damages:
        raise ValueError(f"no checkpoint is left to go on from: {', '.join(damages)}; remove {folder.parent}")
    return None


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's weights and buffers in a checkpoint, by the names that they have in the network."""
    return {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}


def best_weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run's best epoch by validation accuracy.

    Raises:
        ValueError: the checkpoint is damaged.
        OSError: it is missing or cannot be read.
    """
    return weights_of(read_checkpoint(run.checkpoints / BEST))


def save_weights(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Writes the weights of a network that was not trained by epochs as the best checkpoint of its run.

    Raises:
        OSError: the folder cannot be written to.
    """
    state = {f"model.{name}": value for name, value in weights.items()}
    WholeCheckpoints().save_checkpoint({"state_dict": state, "epoch": 0}, run.checkpoints / BEST)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a network.

    Args:
        network: takes the weights.
        weights: as its `state_dict`.
        path: where the weights come from, for the error.

    Raises:
        ValueError: they are those of another network.
    """
    here = {name: list(value.shape) for name, value in network.state_dict().items()}
    there = {name: list(value.shape) for name, value in weights.items()}
    for name in here | there:
        if here.get(name) != there.get(name):
            shapes = f"{name} is {there.get(name, 'missing')} there, {here.get(name, 'missing')} here"
            raise ValueError(f"{path} is the checkpoint of another network: {shapes}")
    network.load_state_dict(weights)
