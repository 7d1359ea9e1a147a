"""Leaky integrate-and-fire neurons as official code writes them: one dynamics, time in another place in each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import tracegrad as tg


class Fire(torch.autograd.Function):
    """Eq. 3 with the triangle surrogate."""

    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        return gradient * (1 - distance.abs()).clamp(min=0)


class Dynamics(nn.Module):
    """One step, and the loop over it, time first."""

    leak = 0.6

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        u = self.leak * v + current
        spikes = Fire.apply(u - self.threshold)
        return spikes, u * (1 - spikes)

    def over_time(self, currents: Tensor) -> Tensor:
        v, fired = 0.0, []
        for current in currents:
            spikes, v = self.step(v, current)
            fired.append(spikes)
        return torch.stack(fired)


class TimeFirst(Dynamics):
    """[T, B, ...]."""

    def forward(self, currents: Tensor) -> Tensor:
        return self.over_time(currents)


class Written(Dynamics):
    """[T, B, ...], written step by step into a tensor of zeros."""

    def forward(self, currents: Tensor) -> Tensor:
        v, fired = 0.0, torch.zeros_like(currents)
        for t in range(len(currents)):
            fired[t], v = self.step(v, currents[t])
        return fired


class BatchFirst(Dynamics):
    """[B, T, ...]."""

    def forward(self, currents: Tensor) -> Tensor:
        v, fired = 0.0, []
        for t in range(currents.size(1)):
            spikes, v = self.step(v, currents[:, t])
            fired.append(spikes)
        return torch.stack(fired, dim=1)


class TimeLast(Dynamics):
    """[B, ..., T], written step by step into a tensor of zeros."""

    def forward(self, currents: Tensor) -> Tensor:
        v, fired = 0.0, torch.zeros_like(currents)
        for t in range(currents.shape[-1]):
            fired[..., t], v = self.step(v, currents[..., t])
        return fired


class FoldedTimeFirst(Dynamics):
    """[T * B, ...], with a T of its own."""

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.T = time_steps

    def forward(self, currents: Tensor) -> Tensor:
        return self.over_time(currents.view(self.T, -1, *currents.shape[1:])).flatten(0, 1)


class FoldedBatchFirst(Dynamics):
    """[B * T, ...], with a T of its own."""

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.T = time_steps

    def forward(self, currents: Tensor) -> Tensor:
        frames = currents.reshape(-1, self.T, *currents.shape[1:])
        return self.over_time(frames.transpose(0, 1)).transpose(0, 1).flatten(0, 1)


class Stateful(Dynamics):
    """One step a call; its membrane stays in it until `reset`."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)
        self.v: Tensor | None = None

    def reset(self) -> None:
        self.v = None

    def forward(self, current: Tensor) -> Tensor:
        spikes, self.v = self.step(0.0 if self.v is None else self.v, current)
        return spikes


class Passed(Dynamics):
    """One step a call; its membrane is passed in and comes back after the spikes."""

    def forward(self, current: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.step(0.0 if v is None else v, current)


tg.register_neuron(TimeFirst)
tg.register_neuron(Written)
tg.register_neuron(BatchFirst, time_dim=1)
tg.register_neuron(TimeLast, time_dim=-1)
tg.register_neuron(FoldedTimeFirst, folded=lambda neuron, _: neuron.T)
tg.register_neuron(FoldedBatchFirst, time_dim=1, folded=lambda neuron, _: neuron.T)
tg.register_neuron(Stateful, step=True, state="v", reset="reset()")
tg.register_neuron(Passed, step=True, state="v", reset="it without a membrane")


def folded(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer of single frames, on all frames of `x` at once."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
