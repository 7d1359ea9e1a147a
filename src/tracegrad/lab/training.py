"""Trains one run and measures it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerStatus
from torch import nn

from tracegrad.lab.build import attach_method, build_model
from tracegrad.lab.callbacks import EpochLog, TensorBoardLog
from tracegrad.lab.checkpoints import (
    BEST,
    Checkpoints,
    WholeCheckpoints,
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    weights_of,
)
from tracegrad.lab.classifier import SpikingClassifier
from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.evaluation import evaluate_split
from tracegrad.lab.files import sweep
from tracegrad.lab.isolation import isolated, quiet
from tracegrad.lab.runs import Run, environment
from tracegrad.measure.raster import count_neurons

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train_run(run: Run, dataset: Dataset, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Trains a run, measures its best checkpoint on the test part, and writes its folder.

    A run that was interrupted goes on after the last epoch that it finished, and ends as if nothing had happened, to
    the bit. The checkpoint with the best validation accuracy is measured; the test part is read here and nowhere
    else. Random state and settings of the process are as before afterwards.

    Args:
        run: what to train, and where to write it.
        dataset: the data that the run's recipe names.
        callbacks: further Lightning callbacks, e.g. one that shows progress.

    Returns:
        The content of result.json.

    Raises:
        ValueError: the folder holds another run or damaged checkpoints, or NaN in images or loss.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: Ctrl-C; the checkpoints of finished epochs are in the folder.
    """
    run.check()
    sweep(run.folder)
    run.write_config()
    log = EpochLog(run.folder / "metrics.csv")
    with isolated(run.seed, run.recipe.training.threads), quiet():
        model = build_model(run.recipe.model, len(dataset.classes), dataset.channels)
        attachment = attach_method(run.method, model, dataset)
        checkpoints = _fit(run, model, dataset, [log, *_tensorboard(log, run), *callbacks])
        if attachment:
            attachment.detach()
        measured = _measure_best(run, model, dataset)
        surroundings = environment()
    result = {
        "study": run.recipe.name,
        "method": run.name,
        "seed": run.seed,
        "reset": run.recipe.model.neuron.reset,
        **measured,
        "validation_accuracy": checkpoints.best_accuracy,
        "epochs": run.recipe.training.epochs,
        "seconds": sum(row["seconds"] for row in log.rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs": attachment.pairs if attachment else [],
        "classes": dataset.classes,
        "image_shape": [dataset.channels, *dataset.image_size],
        **surroundings,
    }
    run.write_result(result)
    return result


def _tensorboard(log: EpochLog, run: Run) -> list[Callback]:
    return [TensorBoardLog(log, run.folder / "tensorboard")] if find_spec("tensorboard") else []


def _fit(run: Run, model: nn.Module, dataset: Dataset, callbacks: Sequence[Callback]) -> Checkpoints:
    recipe, size = run.recipe, run.recipe.training.batch_size
    module = SpikingClassifier(model, recipe.objective, recipe.training, run.seed)
    train = Batches(dataset.train, size, dataset=dataset, seed=run.seed, options=recipe.data, shuffle=True)
    validation = Batches(dataset.validation, size, dataset=dataset, seed=run.seed)
    start, epochs = _start(run, model)
    checkpoints = Checkpoints(run.checkpoints, epochs)
    trainer = _trainer(run, [*callbacks, checkpoints])
    try:
        trainer.fit(module, train, validation, ckpt_path=start, weights_only=True)
    except ValueError as error:
        raise ValueError(f"{run.label}: {error}") from error
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        saved = f"{checkpoints.epochs} of {recipe.training.epochs} epochs are saved"
        raise KeyboardInterrupt(f"{run.label}: {saved}") from None
    return checkpoints


def _start(run: Run, model: nn.Module) -> tuple[Path | None, int]:
    """The checkpoint from which the run goes on and the number of epochs behind it; None and 0 at the beginning."""
    latest = latest_checkpoint(run.checkpoints)
    if latest is None:
        return None, 0
    path, checkpoint = latest
    load_weights(model, weights_of(checkpoint), path)
    return path, checkpoint["epoch"] + 1


def _measure_best(run: Run, model: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Loads the best weights and measures them on the test part."""
    best = run.checkpoints / BEST
    load_weights(model, weights_of(read_checkpoint(best)), best)
    measured = evaluate_split(model, dataset.test, run.recipe, dataset)
    return {
        "test_accuracy": measured.accuracy,
        "spikes_per_image": measured.spikes_per_image,
        "spikes_per_layer": measured.spikes_per_layer,
        "neurons_per_layer": count_neurons(model, torch.zeros(1, dataset.channels, *dataset.image_size)),
    }


def _trainer(run: Run, callbacks: list[Callback]) -> lightning.Trainer:
    training = run.recipe.training
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
