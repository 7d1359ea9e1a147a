"""Encoders inside the model: spikes that no gradient reaches, drawn or computed from the data."""

import torch
from architecture import EXAMPLES, Architecture, T, reals
from spiking import Stateful, TimeFirst
from tape import Tape
from torch import Tensor, nn


class Encoded(nn.Module):
    """Images [B, F] become spikes in the model, then two layers and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.lif0 = nn.Linear(8, 6), TimeFirst()
        self.fc1, self.lif1 = nn.Linear(6, 5), TimeFirst()
        self.head = nn.Linear(5, 3)

    def encoded(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif1(self.fc1(self.lif0(self.fc0(self.encoded(x)))))
        return self.head(s)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, tape.synapse(self.fc0, self.encoded(x)), [self.fc0])
        s = tape.neuron(self.lif1, tape.synapse(self.fc1, s), [self.fc1])
        return tape.synapse(self.head, s)


class Poisson(Encoded):
    """Rate coding: a spike with the pixel's value as its probability."""

    def encoded(self, x: Tensor) -> Tensor:
        return (torch.rand(T, *x.shape) < x).to(x.dtype)


class Latency(Encoded):
    """The brighter, the earlier: one spike of height 2 per pixel."""

    def encoded(self, x: Tensor) -> Tensor:
        when = ((1 - x.detach().clamp(0, 1)) * (T - 1)).round().long()
        return 2 * nn.functional.one_hot(when, T).movedim(-1, 0).to(x.dtype)


class PoissonSteps(nn.Module):
    """Rate coding step by step, on images that pass a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.lif = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), Stateful()
        self.fc, self.lif2, self.head = nn.Linear(36, 6), Stateful(), nn.Linear(6, 3)

    def forward(self, image: Tensor) -> Tensor:
        self.lif.reset()
        self.lif2.reset()
        outputs = []
        for _ in range(T):
            frame = torch.bernoulli(image.detach().clamp(0, 1))
            s = self.lif(self.norm(self.conv(frame)))
            outputs.append(self.head(self.lif2(self.fc(s.flatten(1)))))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        v, v2, outputs = 0.0, 0.0, []
        for _ in range(T):
            frame = torch.bernoulli(image.detach().clamp(0, 1))
            s, v = self.lif.step(v, self.norm(tape.step(self.conv, frame)))
            tape.fired(self.lif, s[None], [self.conv])
            s, v2 = self.lif2.step(v2, tape.step(self.fc, s.flatten(1)))
            tape.fired(self.lif2, s[None], [self.fc])
            outputs.append(tape.step(self.head, s))
        return torch.stack(outputs)


class Shades(Encoded):
    """No spikes: the image in three shades of grey, at every step."""

    def encoded(self, x: Tensor) -> Tensor:
        return (x.detach() * 2).round().clamp(0, 2).expand(T, *x.shape)


class Unpaired(Poisson):
    """What the reference pairs where the data are not declared to be spikes."""

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, tape.synapse(self.fc0, self.encoded(x)))
        s = tape.neuron(self.lif1, tape.synapse(self.fc1, s), [self.fc1])
        return tape.synapse(self.head, s)


class UnpairedShades(Shades, Unpaired):
    """Three heights are no spikes, whatever is declared of the data."""


_PAIRS = (("fc0", "lif0"), ("fc1", "lif1"))
_SPIKES = {"spiking_input": True}
ARCHITECTURES = {
    "poisson": Architecture(Poisson, reals(EXAMPLES, 8), _PAIRS, {"head": "reaches no"}, _SPIKES),
    "latency": Architecture(Latency, reals(EXAMPLES, 8), _PAIRS, {"head": "reaches no"}, _SPIKES),
    "poisson-steps": Architecture(
        PoissonSteps, reals(EXAMPLES, 1, 5, 5), (("conv", "lif"), ("fc", "lif2")), {"head": "reaches no"}, _SPIKES
    ),
    "poisson-undeclared": Architecture(
        Unpaired, reals(EXAMPLES, 8), _PAIRS[1:], {"fc0": "constant", "head": "reaches no"}
    ),
    "shades": Architecture(
        UnpairedShades, reals(EXAMPLES, 8), _PAIRS[1:], {"fc0": "constant", "head": "reaches no"}, _SPIKES
    ),
}
