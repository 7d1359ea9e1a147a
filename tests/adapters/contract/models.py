"""The ways in which a network is called: all steps at once, in a loop of its own, or in its user's loop."""

import torch
from torch import Tensor, nn

from contract.library import Library


class Model(nn.Module):
    """A network whose neurons fire in the sequence that `begin` has started."""

    def __init__(self, network: nn.Module, library: Library) -> None:
        super().__init__()
        self.network, self.library = network, library
        self.begin()

    def begin(self) -> None:
        self.fire = self.library.begin(self.network)


class AtOnce(Model):
    """Takes all steps in one call, as its neurons do; layers of torch.nn get time folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        if "*" in self.library.layout or self.library.layers is not nn:
            return self.network.step(x, self.library.call)

        def fire(neuron: nn.Module, current: Tensor) -> Tensor:
            return self.library.call(neuron, current.unflatten(0, x.shape[:2])).flatten(0, 1)

        return self.network.step(x.flatten(0, 1), fire).unflatten(0, x.shape[:2])


class LoopInside(Model):
    """Loops over time in its forward pass, [T, B, ...] -> [T, B, ...], which starts a sequence if it `begins`."""

    def __init__(self, network: nn.Module, library: Library) -> None:
        super().__init__(network, library)
        self.begins, self.segment = True, lambda step, x, fire: step(x, fire)

    def forward(self, x: Tensor) -> Tensor:
        fire = self.library.begin(self.network) if self.begins else self.fire
        return torch.stack([self.segment(self.network.step, frame, fire) for frame in x])


class LoopOutside(Model):
    """Takes one step a call, [B, ...]."""

    def forward(self, frame: Tensor) -> Tensor:
        return self.network.step(frame, self.fire)


WAYS = {"at-once": AtOnce, "loop-inside": LoopInside, "loop-outside": LoopOutside}


def ways_of(library: Library) -> tuple[str, ...]:
    """How networks of a library's neurons are called."""
    return ("at-once",) if library.layout else ("loop-inside", "loop-outside")
