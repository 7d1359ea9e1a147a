"""Trained networks as files that other libraries read."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import safetensors.torch

from tracegrad.lab.files import write
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.runs.run import to_yaml

Format = Literal["safetensors", "nir"]


def export_run(folder: Path, output: Path | None = None, to: Format = "safetensors") -> Path:
    """Writes the network of a complete run with its best weights by validation accuracy.

    "safetensors" writes the weights, which are read with

        network.load_state_dict(safetensors.torch.load_file(path))

    "nir" writes the network as a graph, which `tracegrad.adapters.nir.from_nir` and other libraries read. The metadata
    of both hold the recipe as YAML, classes and image shape as JSON, test accuracy, and the version of tracegrad.

    Args:
        folder: of the run.
        output: of the file; weights.safetensors or network.nir in the run's folder by default.
        to: what to write.

    Returns:
        The path of the file.

    Raises:
        ValueError: no complete run, the checkpoint of another network, or one that NIR cannot say: a soft reset.
        ImportError: the package nir is missing.
        OSError: the file cannot be written.
    """
    trained = TrainedRun.read(folder)
    content, name = (_graph(trained), "network.nir") if to == "nir" else (_weights(trained), "weights.safetensors")
    path = output or folder / name
    write(path, content)
    return path


def _weights(trained: TrainedRun) -> bytes:
    state = trained.network().state_dict()  # of a conversion, the spiking network's
    weights = {name: value.contiguous() for name, value in state.items()}
    return safetensors.torch.save(weights, {"format": "pt", **_metadata(trained)})


def _graph(trained: TrainedRun) -> bytes:
    from tracegrad.adapters.nir import to_bytes, to_nir

    graph = to_nir(trained.network(), trained.task.example)
    graph.metadata = _metadata(trained)
    return to_bytes(graph)


def _metadata(trained: TrainedRun) -> dict[str, str]:
    return {
        "tracegrad": version("tracegrad"),
        "recipe": to_yaml(trained.run.recipe),
        "classes": json.dumps(trained.result["classes"]),
        "image_shape": json.dumps(trained.result["image_shape"]),
        "test_accuracy": str(trained.result["test_accuracy"]),
        "spikes_per_image": str(trained.result["spikes_per_image"]),
    }
