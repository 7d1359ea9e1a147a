"""Looks into a network while it is trained: relations after every epoch, spikes after the last."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron
from tracegrad.lab.files import write, write_rows
from tracegrad.lab.runs import Run
from tracegrad.measure.raster import count_neurons, record_rasters
from tracegrad.measure.relations import STATISTICS, distribution, kernel_mean, measure_relations, scale

COLUMNS = ("epoch", "synapse", "quantity", *STATISTICS)


class Probe(Callback):
    """Measures a run on the first validation batch; the training goes on as if nothing had happened.

    Writes into the run's folder

    - relations.csv, after every epoch: mean and quantiles of R_hat ("relation") and of the factor on the gradient
      ("scale") at every scaled synapse, over all its weights and time steps; epochs count from 1. The rows are part
      of every checkpoint. Not for a baseline.
    - probe.npz, after the last epoch: the neurons of every layer; R_hat of every scaled synapse as a mean over time
      and kernel positions; spikes at both ends of every synapse that could be scaled, for the first validation image.

    A network without spikes has nothing to be measured.

    Args:
        run: what is trained.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and writes."""
        batch: tuple[Tensor, Tensor] = next(iter(cast(Any, trainer.val_dataloaders)))
        model, images = cast(nn.Module, pl_module.model), batch[0].to(pl_module.device)
        if not any(is_neuron(module) for module in model.modules()):
            return
        epoch = trainer.current_epoch + 1
        with trainer.precision_plugin.forward_context():
            relations = measure_relations(model, images, **self.run.method.attachment) if self.run.method.alpha else {}
            if epoch == trainer.max_epochs:
                self._write_probe(model, images[:1], relations)
        if relations:
            self.rows += [row for name, relation in relations.items() for row in self._rows(epoch, name, relation)]
            write_rows(self.run.folder / "relations.csv", COLUMNS, self.rows)

    def _rows(self, epoch: int, synapse: str, relation: Tensor) -> list[dict[str, Any]]:
        method = self.run.method
        quantities = {"relation": relation, "scale": scale(relation, method.alpha, method.scaling)}
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

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Six digits, as the rows are many and the batch is small."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
