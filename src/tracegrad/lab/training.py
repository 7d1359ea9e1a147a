"""Trains one run and measures it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback

from tracegrad.lab.checkpoints import best_weights
from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.files import sweep
from tracegrad.lab.isolation import isolated, quiet
from tracegrad.lab.kinds import kind_of
from tracegrad.lab.memory import PeakMemory
from tracegrad.lab.runs import Run, environment
from tracegrad.lab.task import Task

COUNTED = 100
"""Test images, the first ones, whose synaptic operations are counted."""


def train_run(run: Run, dataset: Dataset, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Trains a run, measures its best checkpoint on the test part, and writes its folder.

    A run that was interrupted goes on after the last epoch that it finished, and ends as if nothing had happened, to
    the bit; a conversion begins again. The checkpoint with the best validation accuracy is measured; the test part is
    read here and nowhere else. Random state and settings of the process are as before afterwards.

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
    kind, setting, task = kind_of(run.method), run.setting, Task.of(dataset)
    with isolated(run.seed, setting.training.threads), quiet():
        memory = PeakMemory()
        fitted = kind.fit(run, dataset, callbacks)
        peak = memory.megabytes()
        network = kind.network(run, best_weights(run), task)
        validation = fitted.validation_accuracy
        if validation is None:
            validation = kind.evaluate(run, network, dataset.validation, dataset).accuracy
        measured = kind.evaluate(run, network, dataset.test, dataset)
        images, _ = next(iter(Batches(dataset.test, COUNTED, dataset=dataset, seed=0)))
        operations = kind.operations(network, images)
        surroundings = environment()
    result = {
        "study": run.recipe.name,
        "method": run.name,
        "seed": run.seed,
        "reset": setting.model.neuron.reset,
        "time_steps": kind.time_steps(run),
        "test_accuracy": measured.accuracy,
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
        "image_shape": [dataset.channels, *dataset.image_size],
        **surroundings,
    }
    run.write_result(result)
    return result
