"""What every procedure can do: the ways in which a network comes about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation, evaluate_split
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch
from tracegrad.measure.energy import Operations, measure_operations


class Procedure(Protocol):
    """How the network of a run comes about. Its fields are the options of the method."""

    needs_source: ClassVar[bool] = False
    """Whether it starts from the network of another run."""

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds everything once, so that what does not fit fails before anything is trained.

        Args:
            run: what is to be trained.
            task: what it is to learn.
            source: the run that its method names, trained or not.

        Raises:
            ValueError: the run's recipe does not fit the kind, or its source.
        """
        ...

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains or converts, and leaves the weights in the run.

        Raises:
            ValueError, OSError, KeyboardInterrupt: as `tracegrad.lab.studies.train_run.train_run`.
        """
        ...

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The network that is measured, images [B, C, H, W] -> outputs [T, B, classes], in evaluation mode.

        Args:
            run: of this kind.
            weights: of its the run.
            task: what it learned.
            time_steps: T; the recipe's by default.

        Raises:
            ValueError: the weights are those of another network, or T does not fit.
        """
        ...

    def time_steps(self, run: Run) -> int:
        """T of the network that is measured."""
        return run.setting.model.time_steps

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Measures a network on a part of the data.

        Args:
            run: of this kind.
            network: its network.
            split: the part, without augmentation.
            dataset: what `split` is a part of.
        """
        return evaluate_split(network, split, run.setting, dataset)

    def operations(self, network: nn.Module, images: Tensor) -> Operations | None:
        """What all synapses of a network do for one image, a mean over some; None for networks that are not counted.

        Args:
            network: of this kind.
            images: [B, C, H, W].
        """
        return sum(measure_operations(network, images).values(), start=Operations())
