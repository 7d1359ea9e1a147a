"""Neurons of every convention, in plain PyTorch, right or wrong by what is declared of them; and their check."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core.conventions.check import check_convention
from tracegrad.core.neurons import convention_of

T = 4


def check(neuron: nn.Module, *arguments, declared: dict | None = None, **keywords) -> None:
    """`declared` registers its class first."""
    if declared is not None:
        tg.register_neuron(type(neuron), **declared)
    assert convention_of(neuron) is not None, "nothing is checked of a neuron that is not registered"
    check_convention("layers.2", neuron, arguments, keywords)


def refused(neuron: nn.Module, *arguments, **options) -> str:
    with pytest.raises(ValueError, match=rf"^neuron layers.2 \(class {type(neuron).__name__}\)") as error:
        check(neuron, *arguments, **options)
    return str(error.value)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, over: Tensor) -> Tensor:
        ctx.save_for_backward(over)
        return (over >= 0).to(over)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0].abs() < 0.5)


class TimeFirst(nn.Module):
    """Leaky integrate and fire, [T, B, ...]."""

    def __init__(self, leak: float = 0.5, threshold: float = 0.5, hard: bool = True) -> None:
        super().__init__()
        self.leak, self.threshold, self.hard = leak, threshold, hard

    def over(self, u: Tensor, _last: Tensor) -> Tensor:
        """How far the membrane is over its threshold."""
        return u - self.threshold

    def returned(self, s: Tensor, _u: Tensor) -> Tensor:
        """What is returned of one step."""
        return s

    def forward(self, currents: Tensor) -> Tensor:
        u = s = torch.zeros_like(currents[0])
        out = []
        for z in currents:
            u = self.leak * u + z
            s = Spike.apply(self.over(u, s))
            out.append(self.returned(s, u))
            u = u * (1 - s) if self.hard else u - s * self.threshold
        return torch.stack(out)


class BatchFirst(TimeFirst):
    """[B, T, ...]."""

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(currents.transpose(0, 1)).transpose(0, 1)


class TimeLast(TimeFirst):
    """[B, ..., T]."""

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(currents.movedim(-1, 0)).movedim(0, -1)


class StepsFolded(TimeFirst):
    """[T * B, ...]."""

    steps = T

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(currents.unflatten(0, (self.steps, -1))).flatten(0, 1)


class ExamplesFolded(TimeFirst):
    """[B * T, ...]."""

    steps = T

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(currents.unflatten(0, (-1, self.steps)).transpose(0, 1)).transpose(0, 1).flatten(0, 1)


class Stepping(nn.Module):
    """One step a call, [B, ...]; the membrane is an attribute, `None` before a sequence."""

    def __init__(self, detach: bool = False) -> None:
        super().__init__()
        self.v: Tensor | None = None
        self.detach = detach

    def forward(self, current: Tensor) -> Tensor:
        u = current if self.v is None else 0.5 * self.v + current
        s = Spike.apply(u - 0.5)
        self.v = u * (1 - s)
        if self.detach:
            self.v = self.v.detach()
        return s


class Cell(nn.Module):
    """One step a call; the membrane is given and returned."""

    def forward(self, current: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = current if v is None else 0.5 * v + current
        s = Spike.apply(u - 0.5)
        return s, u * (1 - s)


class Detached(TimeFirst):
    """The membrane carries no gradient: only values can show its memory."""

    def forward(self, currents: Tensor) -> Tensor:
        u, out = torch.zeros_like(currents[0]), []
        for z in currents:
            u = 0.5 * u.detach() + z
            out.append(Spike.apply(u - 0.5))
            u = u * (1 - out[-1])
        return torch.stack(out)


class Threshold(TimeFirst):
    """A threshold for each of six channels of [T, B, C, ...], trained, and a leak."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.linspace(0.1, 3, 6).reshape(6, 1, 1))
        self.rate = nn.Parameter(torch.tensor(0.7))

    def over(self, u: Tensor, _last: Tensor) -> Tensor:
        return torch.sigmoid(self.rate) * u - self.levels

    def returned(self, s: Tensor, _u: Tensor) -> Tensor:
        return s * self.levels


class Stochastic(TimeFirst):
    """A random threshold."""

    def over(self, u: Tensor, _last: Tensor) -> Tensor:
        return u - torch.rand_like(u)


class Inhibited(TimeFirst):
    """Lateral inhibition over channels, by the spikes of the last step, and at once by the mean membrane."""

    def over(self, u: Tensor, last: Tensor) -> Tensor:
        return u - 0.5 - last.mean(1, keepdim=True) - 0.2 * u.mean(1, keepdim=True)


class Normalized(TimeFirst):
    """A norm of the currents inside, with statistics of the batch in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(self.norm(currents.flatten(0, 1)).unflatten(0, currents.shape[:2]))


class Homeostatic(TimeFirst):
    """A threshold that the spikes of the whole batch raise for later steps."""

    def forward(self, currents: Tensor) -> Tensor:
        u, out, level = torch.zeros_like(currents[0]), [], 0.5
        for z in currents:
            u = 0.5 * u + z
            out.append(Spike.apply(u - level))
            level, u = level + out[-1].mean(), u * (1 - out[-1])
        return torch.stack(out)


class Refractory(TimeFirst):
    """Silent for two steps after a spike."""

    def forward(self, currents: Tensor) -> Tensor:
        u = rest = torch.zeros_like(currents[0])
        out = []
        for z in currents:
            u = 0.9 * u + z
            s = Spike.apply(u - 0.5) * (rest <= 0)
            rest = torch.where(s > 0, 2.0, rest - 1)
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)


class Parallel(nn.Module):
    """Steps mixed by trained weights, earlier and later ones alike (a parallel spiking neuron), [T, B, ...]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(T, T, generator=generator) + torch.eye(T))

    def forward(self, currents: Tensor) -> Tensor:
        return Spike.apply(torch.tensordot(self.weight, currents, 1) - 0.5)


class ParallelBatchFirst(Parallel):
    """[B, T, ...]."""

    def forward(self, currents: Tensor) -> Tensor:
        return super().forward(currents.transpose(0, 1)).transpose(0, 1)


class Transposed(nn.Module):
    """A neuron that takes the first two dimensions the other way round."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, currents: Tensor) -> Tensor:
        output = self.neuron(currents.transpose(0, 1))
        return (output[0] if isinstance(output, tuple) else output).transpose(0, 1)


class ReturnsSpikesLast(TimeFirst):
    """(membranes, spikes)."""

    def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        spikes = super().forward(currents)
        return 0.3 * currents + 0.1 * spikes, spikes


def returning(name: str, value: Callable[[TimeFirst, Tensor, Tensor], Tensor]) -> type[TimeFirst]:
    """A class of neurons that return something of their spikes and membranes (self, s, u)."""
    return type(name, (TimeFirst,), {"returned": value})


Signed = returning("Signed", lambda self, s, u: 2 * s - 1)
Graded = returning("Graded", lambda self, s, u: s * torch.sigmoid(u - self.threshold).clamp(0.02, 0.92))
Counts = returning("Counts", lambda self, s, u: (u / self.threshold).floor().clamp(0, 4))
Membrane = returning("Membrane", lambda self, s, u: u)
Surrogate = returning("Surrogate", lambda self, s, u: torch.sigmoid(4 * (u - self.threshold)))
Inhibitory = returning("Inhibitory", lambda self, s, u: -s)
High = returning("High", lambda self, s, u: 0.3 * s)
Rounded = returning("Rounded", lambda self, s, u: (s - torch.sigmoid(u)).detach() + torch.sigmoid(u))
