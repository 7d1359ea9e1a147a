"""Looks into a network while it is trained: relations after every epoch, spikes after the last."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron
from tracegrad.lab.data import batch_dim
from tracegrad.lab.files import write
from tracegrad.lab.runs.run import Run
from tracegrad.measure.raster import count_neurons, record_rasters
from tracegrad.measure.relations import distribution, kernel_mean, measure_relations, scale


class Probe:
    """Measures a run on the first validation batch; the training goes on as if nothing had happened.

    - After every epoch, rows of relations.csv: mean and quantiles of R_hat ("relation") and of the factor on the
      gradient ("scale") at every scaled synapse, over all its weights and time steps. Not for a baseline.
    - After the last epoch, probe.npz: the neurons of every layer; R_hat of every scaled synapse as a mean over time
      and kernel positions; spikes at both ends of every synapse that could be scaled, for the first validation image.

    A network without spikes has nothing to be measured.

    Args:
        run: what is trained.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def measure(self, model: nn.Module, images: Tensor, alpha: float, epoch: int, last: bool) -> list[dict[str, Any]]:
        """The rows of an epoch, counted from 1; writes probe.npz after the last one.

        Args:
            model: the network.
            images: [B, C, H, W], or frames [T, B, C, H, W].
            alpha: strength of the scaling at the end of the epoch.
            epoch: that has just been trained.
            last: no other one follows.

        Raises:
            OSError: the folder cannot be written to.
        """
        if not any(is_neuron(module) for module in model.modules()):
            return []
        relations = measure_relations(model, images, **self.run.method.attachment) if self.run.method.alpha else {}
        if last:
            self._write_probe(model, images.narrow(batch_dim(images), 0, 1), relations)
        return [row for name, relation in relations.items() for row in self._rows(epoch, name, relation, alpha)]

    def _rows(self, epoch: int, synapse: str, relation: Tensor, alpha: float) -> list[dict[str, Any]]:
        quantities = {"relation": relation, "scale": scale(relation, alpha, self.run.method.scaling)}
        return [
            {"epoch": epoch, "synapse": synapse, "quantity": quantity, **_rounded(distribution(values))}
            for quantity, values in quantities.items()
        ]

    def _write_probe(self, model: nn.Module, image: Tensor, relations: dict[str, Tensor]) -> None:
        neurons = count_neurons(model, image)
        arrays: dict[str, Any] = {"layers": np.array(list(neurons)), "neurons": np.array(list(neurons.values()))}
        for name, relation in relations.items():
            picture = kernel_mean(relation, model.get_submodule(name))
            arrays[f"{name}/relation"] = picture.float().cpu().numpy()
        for name, raster in record_rasters(model, image).items():
            for end, neurons_there in (("pre", raster.pre), ("post", raster.post)):
                arrays[f"{name}/{end}_spikes"] = neurons_there.spikes.numpy()
                arrays[f"{name}/{end}_places"] = neurons_there.places.numpy()
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        write(self.run.folder / "probe.npz", file.getvalue())


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Six digits, as the rows are many and the batch is small."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
