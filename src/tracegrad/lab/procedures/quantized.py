"""A network of quantised activations, measured as it is: the rival of every spike count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation, evaluate_split
from tracegrad.lab.procedures.qcfs import Qcfs
from tracegrad.lab.procedures.relu import check_mean_readout, check_one_step, twin
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.methods.qcfs import count_levels


@dataclass(frozen=True)
class Quantized(Qcfs):
    """The twin with QCFS activations (Bu et al. 2022), which is not converted: no time steps and no spikes.

    Its spike count is the sum of the activations' levels, 0 to `levels`: an activation of level k is worth k spikes, as
    many as the neuron fires that it could be converted to.

    Args:
        levels: L of the activations; the 4 levels of 3 are 2 bits.
        start: their lambda before training.
    """

    levels: int = 3

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the twin."""
        check_mean_readout(run.setting)
        twin(run.setting.model, task, self._activation)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the twin."""
        return fit(run, twin(run.setting.model, Task.of(dataset), self._activation), dataset, watch)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained twin."""
        check_one_step(time_steps)
        return self.without_spikes(run, weights, task)

    def time_steps(self, run: Run) -> int:
        """One: nothing changes over time."""
        return 1

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
