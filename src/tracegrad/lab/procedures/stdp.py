"""A network that learns without labels and without gradients, by spike-timing-dependent plasticity."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.runs.checkpoints import load_weights, save_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch
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

    neurons: int = 100
    batch_size: int = 16
    images: int | None = None
    epochs: int = 1
    assign_images: int = 2000

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the network."""
        for name in ("images", "epochs", "assign_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of a method of kind stdp must be at least 1, not {value}")
        if self.neurons > MOST_NEURONS:
            raise ValueError(f"neurons of a method of kind stdp must be at most {MOST_NEURONS:,}, not {self.neurons}")
        self._network(run, task)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Learns from the images in an order of the run's seed, then assigns neurons to classes."""
        network = self._network(run, Task.of(dataset))
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(run.seed)
        for _ in range(self.epochs):
            order = torch.randperm(len(dataset.train), generator=generator)[: self.images]
            network.cook.train(_pixels(dataset.train.images[order], dataset))
        labelled = slice(0, self.assign_images)
        network.cook.assign(_pixels(dataset.train.images[labelled], dataset), dataset.train.labels[labelled])
        save_weights(run, network.keep().state_dict())
        return Fitted(time.perf_counter() - start, self.epochs)

    def network(
        self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None
    ) -> StdpNetwork:
        """The trained network."""
        network = self._network(run, task, time_steps)
        load_weights(network, weights, run.weights)
        return network.use().eval()

    def evaluate(self, run: Run, network: nn.Module, split: Split, dataset: Dataset) -> Evaluation:
        """Accuracy by the classes that neurons were assigned to, and the spikes of both populations."""
        trained = cast(StdpNetwork, network)
        fresh = self._network(run, Task.of(dataset), trained.cook.time_steps)  # the same Poisson spikes every time
        fresh.load_state_dict(trained.state_dict())
        cook = fresh.use().cook
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

    def _network(self, run: Run, task: Task, time_steps: int | None = None) -> StdpNetwork:
        steps = run.setting.model.time_steps if time_steps is None else time_steps
        inputs = task.channels * task.image_size[0] * task.image_size[1]
        return StdpNetwork(DiehlCook(inputs, self.neurons, steps, self.batch_size, run.seed))


class StdpNetwork(nn.Module):
    """The network with what it learned as buffers, so that it is written and read as other networks are.

    Args:
        cook: the network.
    """

    def __init__(self, cook: DiehlCook) -> None:
        super().__init__()
        self.cook = cook
        self.weight = nn.Parameter(cook.weight.clone(), requires_grad=False)
        for name in ("theta", "assignments"):
            self.register_buffer(name, None)
        self.keep()

    def keep(self) -> StdpNetwork:
        """Takes over what the network has learned."""
        self.weight.data.copy_(self.cook.weight)
        self.theta = self.cook.theta.clone()
        assignments = self.cook.assignments
        self.assignments = torch.full((len(self.theta),), -1) if assignments is None else assignments.clone()
        return self

    def use(self) -> StdpNetwork:
        """Gives the network what it had learned."""
        self.cook.weight, self.cook.theta = self.weight.detach().clone(), self.theta.clone()
        self.cook.assignments = self.assignments.clone()
        return self


def _pixels(images: Tensor, dataset: Dataset) -> Tensor:
    """Images with values in [0, 1]: stored pixels by the largest one for training."""
    return (images.float() / float(dataset.train.images.max())).clamp(0, 1)
