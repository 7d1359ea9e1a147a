"""A part of every kind that a recipe can name."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from own_neuron import Adaptive  # a module beside this one

import tracegrad as tg
from tracegrad.lab.data import DataOptions, Dataset, Split
from tracegrad.lab.procedures import Procedure
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.runs.checkpoints import save_weights
from tracegrad.lab.train import Fitted

causal_alone = (tg.Term(+1, pre="trace", post="spikes"),)


def stripes(options: DataOptions) -> Dataset:
    """Images of 8 x 8 pixels with one bright row or column."""
    number = torch.arange(240)
    rows = F.one_hot(number % 8, 8).float()[:, None, :, None].expand(-1, 1, 8, 8)
    labels = number // 120
    images = torch.where(labels[:, None, None, None] == 0, rows, rows.transpose(2, 3))
    parts = [Split(images[part::3].contiguous(), labels[part::3]) for part in range(3)]
    return Dataset("stripes", parts[0], parts[1], lambda: parts[2], ("rows", "columns"), (0.125,), (0.33,))


def smooth(outputs, target):
    return F.cross_entropy(outputs.mean(0), target, label_smoothing=0.1)


def gaussian(distance):
    return torch.exp(-(distance**2))


def sign(relation):
    return relation.sign()


def boost(gradient, relation, alpha):
    return gradient * (1 + alpha * relation)


def quiet_norm(channels, scale, threshold, time_steps):
    norm = tg.TDBatchNorm2d(channels, scale, threshold)
    torch.nn.init.constant_(norm.bias, 0.01)
    return norm


def adaptive(threshold, rise=0.2):
    return Adaptive(threshold, rise)


@dataclass(frozen=True)
class Untrained(Procedure):
    """Keeps the network as it was drawn, times a factor."""

    factor: float = 1.0

    def fit(self, run, dataset, watch=None):
        network = self.build(run, Task.of(dataset))
        save_weights(run, {name: value * self.factor for name, value in network.state_dict().items()})
        return Fitted(0.0)
