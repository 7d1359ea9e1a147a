"""Where T changes on the way through a network, and layers that mix steps: the rest of the network is scaled."""

import torch
import torch.nn.functional as F
from architecture import EXAMPLES, STEPS, Architecture, T, reals, spikes
from spiking import TimeFirst
from tape import Tape
from torch import Tensor, nn


class FoldedOnce(nn.Module):
    """Modelled on a slip in QKFormer's code: one neuron of four takes examples for steps."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.ns = (
            nn.ModuleList(nn.Linear(6, 6) for _ in range(4)),
            nn.ModuleList(TimeFirst(0.1) for _ in range(4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, (f, n) in enumerate(zip(self.f, self.ns, strict=True)):
            z = f(x)
            x = n(z.flatten(0, 1)).unflatten(0, z.shape[:2]) if i == 2 else n(z)
        return x

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        x = tape.neuron(self.ns[0], tape.synapse(self.f[0], x))
        x = tape.neuron(self.ns[1], tape.synapse(self.f[1], x), [self.f[1]])
        z = tape.synapse(self.f[2], x)
        x = tape.neuron(self.ns[2], z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return tape.neuron(self.ns[3], tape.synapse(self.f[3], x), [self.f[3]])


class ChangedBetween(nn.Module):
    """Two stages of layer and neuron; between them, T becomes another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.n0, self.fc1, self.n1 = nn.Linear(6, 6), TimeFirst(0.2), nn.Linear(6, 6), TimeFirst(0.2)
        self.fc2, self.n2, self.fc3, self.n3 = nn.Linear(6, 6), TimeFirst(0.2), nn.Linear(6, 6), TimeFirst(0.2)
        self.head = nn.Linear(6, 3)

    def changed(self, s: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        s = self.changed(self.n1(self.fc1(self.n0(self.fc0(x)))))
        return self.head(self.n3(self.fc3(self.n2(self.fc2(s)))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.n0, tape.synapse(self.fc0, x), [self.fc0])
        s = self.changed(tape.neuron(self.n1, tape.synapse(self.fc1, s), [self.fc1]))
        s = tape.neuron(self.n2, tape.synapse(self.fc2, s), [self.fc2])
        s = tape.neuron(self.n3, tape.synapse(self.fc3, s), [self.fc3])
        return tape.synapse(self.head, s)


class PooledOverTime(ChangedBetween):
    """Modelled on networks that halve T from stage to stage: the mean of each two steps."""

    def changed(self, s: Tensor) -> Tensor:
        return s.unflatten(0, (-1, 2)).mean(1)


class Doubled(ChangedBetween):
    """The sequence, then the same backwards."""

    def changed(self, s: Tensor) -> Tensor:
        return torch.cat([s, s.flip(0)])


class Mixed(nn.Module):
    """Two ordinary pairs, and between them a layer that mixes steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.n0 = nn.Linear(6, 8), TimeFirst(0.2)
        self.mixing, self.n1 = self.layer(), TimeFirst(0.2)
        self.fc1, self.n2, self.head = nn.Linear(8, 5), TimeFirst(0.1), nn.Linear(5, 3)

    def layer(self) -> nn.Module:
        raise NotImplementedError

    def mixed(self, s: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.n2(self.fc1(self.n1(self.mixed(self.n0(self.fc0(x)))))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.n0, tape.synapse(self.fc0, x), [self.fc0])
        s = tape.neuron(self.n1, self.mixed(s))
        return tape.synapse(self.head, tape.neuron(self.n2, tape.synapse(self.fc1, s), [self.fc1]))


class Delays(Mixed):
    """Modelled on learned delays: a causal convolution over time of [B, C, T]."""

    def layer(self) -> nn.Module:
        return nn.Conv1d(8, 8, 3)

    def mixed(self, s: Tensor) -> Tensor:
        return self.mixing(F.pad(s.permute(1, 2, 0), (2, 0))).permute(2, 0, 1)


class TemporalAttention(Mixed):
    """A linear layer whose features are the steps."""

    def layer(self) -> nn.Module:
        return nn.Linear(T, T)

    def mixed(self, s: Tensor) -> Tensor:
        return self.mixing(s.permute(1, 2, 0)).permute(2, 0, 1)


class TemporalVolumes(Mixed):
    """A 3-d convolution that takes time for depth; the 8 features are a picture of 2 x 4."""

    def layer(self) -> nn.Module:
        return nn.Conv3d(1, 1, 3, padding=1)

    def mixed(self, s: Tensor) -> Tensor:
        volume = s.unflatten(2, (2, 4)).movedim(0, 1).unsqueeze(1)
        return self.mixing(volume).squeeze(1).movedim(1, 0).flatten(2)


_STAGES = (("fc0", "n0"), ("fc1", "n1"), ("fc2", "n2"), ("fc3", "n3"))
_MIXED = (("fc0", "n0"), ("fc1", "n2"))
_SPIKES = {"spiking_input": True}
_TIME = r"\bT\b|\btime\b|\bsteps?\b"


def _changed(network: type[nn.Module]) -> Architecture:
    head, either = {"head": "reaches no"}, {"fc2": _TIME}
    return Architecture(network, spikes(STEPS, EXAMPLES, 6), _STAGES, head, _SPIKES, either=either)


def _mixed(network: type[nn.Module]) -> Architecture:
    skipped = {"mixing": _TIME, "head": "reaches no"}
    return Architecture(network, spikes(STEPS, EXAMPLES, 6), _MIXED, skipped, _SPIKES)


ARCHITECTURES = {
    "folded-once": Architecture(
        FoldedOnce,
        reals(STEPS, EXAMPLES, 6),
        (("f.1", "ns.1"), ("f.3", "ns.3")),
        {"f.0": "data", "f.2": _TIME},
        either={"f.3": _TIME},
    ),
    "pooled-over-time": _changed(PooledOverTime),
    "doubled-in-time": _changed(Doubled),
    "delays": _mixed(Delays),
    "temporal-attention": _mixed(TemporalAttention),
    "temporal-volumes": _mixed(TemporalVolumes),
}
