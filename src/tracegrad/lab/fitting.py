"""Trains a network by gradients, on Lightning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerStatus
from torch import nn

from tracegrad.lab.callbacks import EpochLog, TensorBoardLog
from tracegrad.lab.checkpoints import Checkpoints, WholeCheckpoints, latest_checkpoint, load_weights, weights_of
from tracegrad.lab.classifier import Lesson, SpikingClassifier
from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.runs import Run

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Fitted:
    """How a network came about; its weights are those of best.ckpt.

    Args:
        seconds: of training or conversion.
        epochs: of training; 0 for a conversion.
        pairs: synapses and neurons between which gradients were scaled.
        validation_accuracy: of the weights of best.ckpt, 0 to 1; None where another network is measured than trained.
        source_accuracy: test accuracy of the network without spikes that was converted or taught, 0 to 1.
    """

    seconds: float
    epochs: int = 0
    pairs: Sequence[tuple[str, str]] = ()
    validation_accuracy: float | None = None
    source_accuracy: float | None = None


def fit(
    run: Run, model: nn.Module, dataset: Dataset, callbacks: Sequence[Callback], lesson: Lesson | None = None
) -> Fitted:
    """Trains a network; goes on after the last epoch whose checkpoint is in the run's folder.

    Args:
        run: names objective, training and seed, and where checkpoints and metrics.csv are written.
        model: images [B, C, H, W] -> outputs [T, B, classes].
        dataset: the data.
        callbacks: further Lightning callbacks.
        lesson: what a batch teaches, instead of the objective.

    Raises:
        ValueError: damaged checkpoints, or those of another network; NaN in images or loss.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: Ctrl-C.
    """
    setting, size = run.setting, run.setting.training.batch_size
    module = SpikingClassifier(model, setting.objective, setting.training, run.seed, lesson)
    train = Batches(dataset.train, size, dataset=dataset, seed=run.seed, options=setting.data, shuffle=True)
    validation = Batches(dataset.validation, size, dataset=dataset, seed=run.seed)
    start, epochs = _start(run, model)
    log, checkpoints = EpochLog(run.folder / "metrics.csv"), Checkpoints(run.checkpoints, epochs)
    trainer = _trainer(run, [log, *_tensorboard(log, run), *callbacks, checkpoints])
    try:
        trainer.fit(module, train, validation, ckpt_path=start, weights_only=True)
    except ValueError as error:
        raise ValueError(f"{run.label}: {error}") from error
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        saved = f"{checkpoints.epochs} of {setting.training.epochs} epochs are saved"
        raise KeyboardInterrupt(f"{run.label}: {saved}") from None
    seconds = sum(row["seconds"] for row in log.rows)
    return Fitted(seconds, setting.training.epochs, validation_accuracy=checkpoints.best_accuracy)


def _tensorboard(log: EpochLog, run: Run) -> list[Callback]:
    return [TensorBoardLog(log, run.folder / "tensorboard")] if find_spec("tensorboard") else []


def _start(run: Run, model: nn.Module) -> tuple[Path | None, int]:
    """The checkpoint from which the run goes on and the number of epochs behind it; None and 0 at the beginning."""
    latest = latest_checkpoint(run.checkpoints)
    if latest is None:
        return None, 0
    path, checkpoint = latest
    load_weights(model, weights_of(checkpoint), path)
    return path, checkpoint["epoch"] + 1


def _trainer(run: Run, callbacks: list[Callback]) -> lightning.Trainer:
    training = run.setting.training
    return lightning.Trainer(
        max_epochs=training.epochs,
        precision=PRECISIONS[training.precision],  # pyright: ignore[reportArgumentType]
        devices=1,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=os.fspath(run.folder),
    )
