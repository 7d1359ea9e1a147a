"""Pools between a synapse and its neuron, `through_pools=True`: spikes go back through the pool of their own step."""

from collections.abc import Callable

import torch
from architecture import EXAMPLES, STEPS, Architecture, T, reals, spikes
from spiking import Stateful, TimeFirst, folded
from tape import Tape
from torch import Tensor, nn


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def back_through(pool: nn.Module, pooled: Tensor) -> Callable[[Tensor], Tensor]:
    """The pool's own backward at each step of its inputs [T, ...], in turn."""
    steps = iter(pooled.detach())

    def route(spikes: Tensor) -> Tensor:
        x = next(steps).clone().requires_grad_()
        return torch.autograd.grad(pool(x), x, spikes)[0]

    return route


class Pooled(nn.Module):
    """Modelled on VGGs with the pool before the neuron: convolution, norm and pool in either order, neuron."""

    def __init__(self, pool: nn.Module, norm: str, threshold: float) -> None:
        super().__init__()
        self.stem, self.norm0, self.lif0 = conv(2, 4), nn.BatchNorm2d(4), TimeFirst()
        self.conv, self.norm1, self.pool, self.where = conv(4, 5), nn.BatchNorm2d(5), pool, norm
        self.lif1, self.head = TimeFirst(threshold), nn.Linear(pool(torch.zeros(1, 5, 8, 8)).numel(), 3)

    def forward(self, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        z = folded(self.conv, self.lif0(folded(self.norm0, folded(self.stem, x))))
        if self.where == "before":
            z = folded(self.norm1, z)
        z = folded(self.pool, z)
        if self.where == "after":
            z = folded(self.norm1, z)
        return self.head(self.lif1(z).flatten(2))

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        s = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.stem, x)))
        z = tape.synapse(self.conv, s)
        if self.where == "before":
            z = folded(self.norm1, z)
        route, z = back_through(self.pool, z), torch.stack([self.pool(frame) for frame in z])
        if self.where == "after":
            z = folded(self.norm1, z)
        return tape.synapse(self.head, tape.neuron(self.lif1, z, [self.conv], route).flatten(2))


class PooledSum(nn.Module):
    """Modelled on Spikformer's patch splitting: a pooled current and one of a strided shortcut meet in one neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = conv(2, 4), nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1)
        self.shortcut, self.lif = nn.Conv2d(2, 4, 1, stride=2), TimeFirst(1.5)
        self.conv1, self.pool1, self.lif1 = nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(2), TimeFirst(0.2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif(folded(self.pool, folded(self.norm, folded(self.conv, x))) + folded(self.shortcut, x))
        return self.head(self.lif1(folded(self.pool1, folded(self.conv1, s))).flatten(2))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        z, beside = folded(self.norm, tape.synapse(self.conv, x)), tape.synapse(self.shortcut, x)
        s = tape.neuron(self.lif, torch.stack([self.pool(frame) for frame in z]) + beside, [self.shortcut])
        tape.reaches(self.lif, s, [self.conv], back_through(self.pool, z))
        z = tape.synapse(self.conv1, s)
        s = tape.neuron(self.lif1, folded(self.pool1, z), [self.conv1], back_through(self.pool1, z))
        return tape.synapse(self.head, s.flatten(2))


class PooledSteps(nn.Module):
    """Convolution, pool and neuron step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(2, 4), nn.BatchNorm2d(4)
        self.pool, self.lif = nn.MaxPool2d(2), Stateful(1.5)
        self.conv1, self.pool1, self.lif1 = nn.Conv2d(4, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), Stateful(0.2)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        self.lif1.reset()
        outputs = []
        for frame in x:
            s = self.lif(self.pool(self.norm(self.conv(frame))))
            outputs.append(self.head(self.lif1(self.pool1(self.conv1(s)).flatten(1))))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        v, v1, outputs = 0.0, 0.0, []
        for frame in x:
            z = self.norm(tape.step(self.conv, frame))
            s, v = self.lif.step(v, self.pool(z))
            tape.fired(self.lif, s[None], [self.conv], back_through(self.pool, z[None]))
            z = tape.step(self.conv1, s)
            s, v1 = self.lif1.step(v1, self.pool1(z).flatten(1))
            mean = z[0, 0].numel()
            tape.fired(self.lif1, s[None], [self.conv1], lambda s, z=z, n=mean: (s / n)[..., None, None].expand_as(z))
            outputs.append(tape.step(self.head, s))
        return torch.stack(outputs)


class NotThrough(PooledSum):
    """Where pools are not to be passed, the layers behind one are left out."""

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        output = super().stepwise(tape, x)
        for behind_a_pool in ("conv", "conv1"):
            tape.synapses[behind_a_pool].posts.clear()
        return output


def _pooled(pool: Callable[[], nn.Module], norm: str, threshold: float = 0.5) -> Architecture:
    return Architecture(
        lambda: Pooled(pool(), norm, threshold),
        reals(EXAMPLES, 2, 8, 8),
        (("conv", "lif1"),),
        {"stem": "data", "head": "reaches no"},
        {"through_pools": True},
    )


_THROUGH = {"through_pools": True, "spiking_input": True}
ARCHITECTURES = {
    "maximum-before-norm": _pooled(lambda: nn.MaxPool2d(2), "after"),
    "maximum-after-norm": _pooled(lambda: nn.MaxPool2d(2), "before", 1.5),
    "overlapping-maximum": _pooled(lambda: nn.MaxPool2d(3, stride=2, padding=1), "before", 1.8),
    "average-before-norm": _pooled(lambda: nn.AvgPool2d(2), "after"),
    "average-after-norm": _pooled(lambda: nn.AvgPool2d(2), "before"),
    "padded-average": _pooled(lambda: nn.AvgPool2d(3, stride=2, padding=1), "after"),
    "adaptive-average": _pooled(lambda: nn.AdaptiveAvgPool2d(3), "after"),
    "adaptive-maximum": _pooled(lambda: nn.AdaptiveMaxPool2d(2), "before", 3.0),
    "pooled-sum": Architecture(
        PooledSum,
        spikes(STEPS, EXAMPLES, 2, 8, 8),
        (("conv", "lif"), ("shortcut", "lif"), ("conv1", "lif1")),
        {"head": "reaches no"},
        _THROUGH,
    ),
    "not-through-pools": Architecture(
        NotThrough,
        spikes(STEPS, EXAMPLES, 2, 8, 8),
        (("shortcut", "lif"),),
        {"conv": "pool", "conv1": "pool", "head": "reaches no"},
        {"spiking_input": True},
    ),
    "pooled-steps": Architecture(
        PooledSteps,
        spikes(STEPS, EXAMPLES, 2, 6, 6),
        (("conv", "lif"), ("conv1", "lif1")),
        {"head": "reaches no"},
        _THROUGH,
    ),
}
