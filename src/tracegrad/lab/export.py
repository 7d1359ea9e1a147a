"""Trained weights as a file that any library reads."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import safetensors.torch

from tracegrad.lab.files import write
from tracegrad.lab.runs import to_yaml
from tracegrad.lab.trained import TrainedRun


def export_run(folder: Path, output: Path | None = None) -> Path:
    """Writes the best weights of a complete run as safetensors; those of the spiking network, if it is a conversion.

    The file's metadata holds the recipe as YAML, classes and image shape as JSON, test accuracy, and the version of
    tracegrad. It is read with

        network.load_state_dict(safetensors.torch.load_file(path))

    Args:
        folder: of the run.
        output: of the file; weights.safetensors in the run's folder by default.

    Returns:
        The path of the file.

    Raises:
        ValueError: no complete run, or the checkpoint of another network.
        OSError: the file cannot be written.
    """
    trained = TrainedRun.read(folder)
    network = trained.network()  # of conversions, the converted one
    metadata = {
        "format": "pt",
        "tracegrad": version("tracegrad"),
        "recipe": to_yaml(trained.run.recipe),
        "classes": json.dumps(trained.result["classes"]),
        "image_shape": json.dumps(trained.result["image_shape"]),
        "test_accuracy": str(trained.result["test_accuracy"]),
        "spikes_per_image": str(trained.result["spikes_per_image"]),
    }
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    path = output or folder / "weights.safetensors"
    write(path, safetensors.torch.save(weights, metadata))
    return path
