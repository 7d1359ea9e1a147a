"""A network that learns without labels and without gradients, by spike-timing-dependent plasticity."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.runs.checkpoints import save_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch
from tracegrad.lab.values import Count
from tracegrad.methods.stdp import DiehlCook

MOST_NEURONS = 20_000  # each inhibits all others


@dataclass(frozen=True)
class Stdp(Procedure):
    """The network of Diehl & Cook (2015), a kind of its own: objective and training of the recipe are not for it.

    Args:
        neurons: excitatory ones, and as many inhibitory ones.
        batch_size: images that are shown side by side in training.
        images: training images to learn from, a random choice; all by default.
        epochs: how often each of them is shown.
        assign_images: training images by whose labels neurons are assigned to classes, the first ones.
    """

    neurons: Annotated[int, Field(ge=1, le=MOST_NEURONS)] = 100
    batch_size: Count = 16
    images: Count | None = None
    epochs: Count = 1
    assign_images: Count = 2000

    def build(self, run: Run, task: Task, time_steps: int | None = None) -> StdpNetwork:
        """The network with its first weights."""
        inputs = task.channels * task.image_size[0] * task.image_size[1]
        steps = run.setting.model.time_steps if time_steps is None else time_steps
        return StdpNetwork(DiehlCook(inputs, self.neurons, steps, self.batch_size, run.seed))

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the network."""
        self.build(run, task)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Learns from the images in an order of the run's seed, then assigns neurons to classes."""
        network = self.build(run, Task.of(dataset))
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(run.seed)
        for _ in range(self.epochs):
            order = torch.randperm(len(dataset.train), generator=generator)[: self.images]
            network.cook.train(_pixels(dataset.train.images[order], dataset))
        labelled = dataset.train.take(torch.arange(len(dataset.train))[: self.assign_images])
        network.cook.assign(_pixels(labelled.images, dataset), labelled.labels)
        network.assignments = cast(Tensor, network.cook.assignments)
        save_weights(run, network.state_dict())
        return Fitted(time.perf_counter() - start, self.epochs)

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Accuracy by the classes that neurons were assigned to, and the spikes of both populations."""
        trained = cast(StdpNetwork, network)
        fresh = self.build(run, Task.of(dataset), trained.cook.time_steps)  # the same Poisson spikes every time
        fresh.load_state_dict(trained.state_dict())
        cook = fresh.cook
        response = cook.respond(_pixels(split.images, dataset))
        counts = {"excitatory": response.excitatory, "inhibitory": response.inhibitory}
        per_layer = {name: float(each.sum() / len(split)) for name, each in counts.items()}
        predicted = cook.classify(response)
        correct = int((predicted == split.labels).sum())
        scores = F.one_hot(predicted, len(dataset.classes)).float()
        neurons = dict.fromkeys(counts, len(cook.weight))
        return Evaluation(correct / len(split), sum(per_layer.values()), per_layer, neurons, scores)

    def operations(self, network: nn.Module, images: Tensor) -> None:
        """Not counted: its synapses are not modules, and inhibition has no weights."""


class StdpNetwork(nn.Module):
    """The network with what it learns as a module's state, so that it is written and read as other networks are.

    Args:
        cook: the network.
    """

    assignments: Tensor

    def __init__(self, cook: DiehlCook) -> None:
        super().__init__()
        cook.assignments = torch.full((len(cook.theta),), -1)
        self.cook = cook
        self.weight = nn.Parameter(cook.weight, requires_grad=False)  # in the same memory
        self.register_buffer("theta", cook.theta)
        self.register_buffer("assignments", cook.assignments)


def _pixels(images: Tensor, dataset: Dataset) -> Tensor:
    """Images with values in [0, 1]: stored pixels by the largest one for training."""
    return (images.float() / float(dataset.train.images.max())).clamp(0, 1)
