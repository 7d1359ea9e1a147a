"""Looks into a network while it is trained: relations after every epoch, spikes after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron
from tracegrad.lab.data import batch_dim
from tracegrad.lab.files import write
from tracegrad.lab.runs.run import Run
from tracegrad.measure.raster import count_neurons, record_rasters
from tracegrad.measure.relations import distribution, kernel_mean, measure_relations, scale


def probe(run: Run, model: nn.Module, images: Tensor, alpha: float, epoch: int) -> list[dict[str, Any]]:
    """Measures a run on the first validation batch; the training goes on as if nothing had happened.

    After the last epoch it writes probe.npz: the neurons of every layer; R_hat of every scaled synapse as a mean over
    time and kernel positions; spikes at both ends of every synapse that could be scaled, for the first image.

    Args:
        run: what is trained.
        model: the network.
        images: [B, C, H, W], or frames [T, B, C, H, W].
        alpha: strength of the scaling at the end of the epoch.
        epoch: that has just been trained, counted from 1.

    Returns:
        Rows of relations.csv: mean and quantiles of R_hat ("relation") and of the factor on the gradient ("scale") at
        every scaled synapse, over all its weights and time steps, to six digits. None for a baseline, nor for a network
        without spikes, in which nothing is measured.

    Raises:
        OSError: the folder cannot be written to.
    """
    if not any(is_neuron(module) for module in model.modules()):
        return []
    relations = measure_relations(model, images, **run.method.attachment) if run.method.alpha else {}
    if epoch == run.setting.training.epochs:
        _write_arrays(run.folder / "probe.npz", model, images.narrow(batch_dim(images), 0, 1), relations)
    rows: list[dict[str, Any]] = []
    for synapse, relation in relations.items():
        quantities = {"relation": relation, "scale": scale(relation, alpha, run.method.scaling)}
        for quantity, values in quantities.items():
            rounded = {name: float(f"{value:.6g}") for name, value in distribution(values).items()}
            rows.append({"epoch": epoch, "synapse": synapse, "quantity": quantity, **rounded})
    return rows


def _write_arrays(path: Path, model: nn.Module, image: Tensor, relations: dict[str, Tensor]) -> None:
    neurons = count_neurons(model, image)
    arrays: dict[str, Any] = {"layers": np.array(list(neurons)), "neurons": np.array(list(neurons.values()))}
    for name, relation in relations.items():
        arrays[f"{name}/relation"] = kernel_mean(relation, model.get_submodule(name)).float().cpu().numpy()
    for name, raster in record_rasters(model, image).items():
        for end, neurons_there in (("pre", raster.pre), ("post", raster.post)):
            arrays[f"{name}/{end}_spikes"] = neurons_there.spikes.numpy()
            arrays[f"{name}/{end}_places"] = neurons_there.places.numpy()
    write(path, lambda file: np.savez_compressed(file, **arrays))
