"""Trains one run and measures it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F

from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.files import sweep, write
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.procedures.own_code import register_code
from tracegrad.lab.ranks import agree
from tracegrad.lab.runs.checkpoints import kept_weights
from tracegrad.lab.runs.isolation import isolated, quiet
from tracegrad.lab.runs.memory import PeakMemory
from tracegrad.lab.runs.run import Run, environment
from tracegrad.lab.train import DivergenceError, Watch

COUNTED = 100
"""Test images, the first ones, whose synaptic operations are counted."""


def train_run(run: Run, dataset: Dataset, watch: Watch | None = None) -> dict[str, Any]:
    """Trains a run, measures it on the test part, and writes its folder.

    A run that was interrupted goes on from its last checkpoint, and ends as if nothing had happened, to the bit; a
    conversion begins again. `training.keep` says which weights are measured; the test part is read here and nowhere
    else. Random state and settings of the process are as before afterwards.

    Args:
        run: what to train, and where to write it.
        dataset: the data that the run's recipe names.
        watch: is called at the start of a training and after every step.

    Returns:
        The content of result.json.

    Raises:
        ValueError: the folder holds another run or damaged checkpoints, or NaN in images.
        DivergenceError: NaN or infinity in loss or weights; the run's folder says so from then on.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: Ctrl-C; the checkpoints of finished epochs are in the folder.
    """
    run.check()
    sweep(run.folder)
    run.write_config()
    code = register_code(run.recipe)
    procedure, setting, task = procedure_of(run.method), run.setting, Task.of(dataset)
    with isolated(run.seed, setting.training.threads), quiet():
        memory = PeakMemory()
        try:
            fitted = procedure.fit(run, dataset, watch)
        except DivergenceError as error:
            run.write_diverged(str(error))
            raise
        peak = memory.megabytes()
        network = procedure.network(run, kept_weights(run), task)
        validation = fitted.validation_accuracy
        if validation is None:
            validation = procedure.evaluate(run, network, dataset.validation, dataset).accuracy
        measured = procedure.evaluate(run, network, dataset.test, dataset)
        images, _ = next(iter(Batches(dataset.test, COUNTED, dataset=dataset, seed=0)))
        operations = procedure.operations(network, images)
        surroundings = environment()
    result = {
        "study": run.recipe.name,
        "method": run.name,
        "seed": run.seed,
        "reset": setting.model.reset,
        "time_steps": procedure.time_steps(run),
        "test_accuracy": measured.accuracy,
        "test_nll": float(F.cross_entropy(measured.scores, dataset.test.labels)),
        "spikes_per_image": measured.spikes_per_image,
        "spikes_per_layer": measured.spikes_per_layer,
        "neurons_per_layer": measured.neurons_per_layer,
        "validation_accuracy": validation,
        "source_accuracy": fitted.source_accuracy,
        "multiply_accumulates_per_image": operations and operations.macs,
        "accumulates_per_image": operations and operations.acs,
        "energy_per_image_uj": operations and operations.energy / 1e6,
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "peak_memory_mb": peak,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "pairs": fitted.pairs,
        "classes": dataset.classes,
        "data_digests": {part: getattr(dataset, part).digest() for part in ("train", "validation", "test")},
        "image_shape": [dataset.channels, *dataset.image_size],
        "frames": dataset.time_steps,
        "code_digests": code,
        **surroundings,
    }
    classes = {"predicted": measured.scores.argmax(-1), "labels": dataset.test.labels}  # for tests over images
    arrays: dict[str, Any] = {name: value.numpy().astype(np.uint16) for name, value in classes.items()}
    write(run.folder / "test.npz", lambda file: np.savez_compressed(file, **arrays))
    run.write_result(result)
    agree(None)
    return result
