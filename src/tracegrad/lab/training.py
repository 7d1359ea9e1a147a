"""Trains one run and measures it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerStatus

from tracegrad.lab.build import attach_method, build_model
from tracegrad.lab.callbacks import Checkpoints, EpochLog
from tracegrad.lab.classifier import SpikingClassifier
from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.evaluation import Evaluation, evaluate
from tracegrad.lab.isolation import isolated, quiet
from tracegrad.lab.runs import Run, environment

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train_run(run: Run, dataset: Dataset, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Trains a run, measures its best checkpoint on the test part, and writes its folder.

    The checkpoint with the best validation accuracy is measured; the test part is read here and nowhere else.
    Random state and settings of the process are as before afterwards.

    Args:
        run: what to train, and where to write it.
        dataset: the data that the run's recipe names.
        callbacks: further Lightning callbacks, e.g. one that shows progress.

    Returns:
        The content of result.json.

    Raises:
        ValueError: the folder holds another run, or NaN in images or loss.
        KeyboardInterrupt: Ctrl-C; the checkpoints of finished epochs are in the folder.
    """
    run.check()
    run.write_config()
    start = time.perf_counter()
    with isolated(run.seed, run.recipe.training.threads), quiet():
        model = build_model(run.recipe.model, dataset)
        attachment = attach_method(run.method, model, dataset)
        module = SpikingClassifier(model, run.recipe.objective, run.recipe.training)
        trainer, best = _trainer(run, callbacks)
        _fit(trainer, module, run, dataset)
        if attachment:
            attachment.detach()
        measured = _test(module, best, run, dataset)
        surroundings = environment()
    result = {
        "study": run.recipe.name,
        "method": run.name,
        "seed": run.seed,
        "reset": run.recipe.model.neuron.reset,
        "test_accuracy": measured.accuracy,
        "spikes_per_image": measured.spikes_per_image,
        "spikes_per_layer": measured.spikes_per_layer,
        "validation_accuracy": float(best.best_model_score or 0.0),
        "epochs": run.recipe.training.epochs,
        "seconds": time.perf_counter() - start,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs": attachment.pairs if attachment else [],
        **surroundings,
    }
    run.write_result(result)
    return result


def _trainer(run: Run, callbacks: Sequence[Callback]) -> tuple[lightning.Trainer, Checkpoints]:
    best = Checkpoints(run.checkpoints)
    training = run.recipe.training
    trainer = lightning.Trainer(
        max_epochs=training.epochs,
        precision=PRECISIONS[training.precision],  # pyright: ignore[reportArgumentType]
        devices=1,
        callbacks=[EpochLog(run.folder / "metrics.csv"), *callbacks, best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=os.fspath(run.folder),
    )
    return trainer, best


def _fit(trainer: lightning.Trainer, module: SpikingClassifier, run: Run, dataset: Dataset) -> None:
    recipe, size = run.recipe, run.recipe.training.batch_size
    train = Batches(dataset.train, size, dataset=dataset, seed=run.seed, options=recipe.data, shuffle=True)
    validation = Batches(dataset.validation, size, dataset=dataset, seed=run.seed)
    try:
        trainer.fit(module, train, validation)
    except ValueError as error:
        raise ValueError(f"{run.label}: {error}") from error
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise KeyboardInterrupt from None


def _test(module: SpikingClassifier, best: Checkpoints, run: Run, dataset: Dataset) -> Evaluation:
    checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    training = run.recipe.training
    batches = Batches(dataset.test, training.batch_size, dataset=dataset, seed=run.seed)
    return evaluate(module.model, batches, module.objective.readout, training.precision == "bf16")
