"""A network of quantised activations, measured as it is: the rival of every spike count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation, evaluate_split
from tracegrad.lab.procedures.without_spikes import Relu
from tracegrad.lab.runs.run import Run
from tracegrad.methods.qcfs import QCFS, count_levels


@dataclass(frozen=True)
class Quantized(Relu):
    """The twin with QCFS activations (Bu et al. 2022), which is not converted: no time steps and no spikes.

    Its spike count is the sum of the activations' levels, 0 to `levels`: an activation of level k is worth k spikes, as
    many as the neuron fires that it could be converted to.

    Args:
        levels: L of the activations; the 4 levels of 3 are 2 bits.
        start: their lambda before training.
    """

    levels: int = 3
    start: float = 8.0

    @property
    def activation(self) -> partial[QCFS]:
        """Quantised, clipped between 0 and lambda."""
        return partial(QCFS, self.levels, self.start)

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Measures the twin; its levels are its spikes."""
        with count_levels(network) as levels:
            measured = evaluate_split(network, split, run.setting, dataset)
        images = len(split)
        return replace(
            measured,
            spikes_per_image=levels.total / images,
            spikes_per_layer={name: count / images for name, count in levels.per_layer.items()},
            neurons_per_layer={name: number // images for name, number in levels.activations.items()},
        )
