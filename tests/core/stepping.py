"""One network in two forms: called step by step, with a neuron written here, and all steps at once."""

from functools import partial

import torch
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 2


@partial(tg.register_neuron, step=True, state="v")
class Cell(nn.Module):
    """One step of tg.LIF, which keeps its membrane."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        u = current if self.v is None else 0.9 * self.v + current
        distance = u.detach() - 0.5
        spikes = (distance >= 0).to(u) + (u - u.detach()) * (distance.abs() <= 0.5)
        self.v = u - 0.5 * spikes
        return spikes


def reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Cell):
            module.v = None


class Layers(nn.Module):
    """Data through a stem, then two convolutions with their neurons, to a classifier; one step."""

    def __init__(self, neuron: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.neuron0 = nn.Conv2d(2, 4, 3, padding=1), neuron()
        self.conv1, self.neuron1 = nn.Conv2d(4, 4, 3, padding=1), neuron()
        self.conv2, self.neuron2 = nn.Conv2d(4, 6, 3, stride=2), neuron()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron1(self.conv1(self.neuron0(self.stem(x))))
        return self.head(self.neuron2(self.conv2(s)).mean((2, 3)))


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers(Cell)

    def forward(self, x: Tensor) -> Tensor:
        reset(self)
        return torch.stack([self.layers(frame) for frame in x])


class AllSteps(Layers):
    def __init__(self) -> None:
        super().__init__(tg.LIF)

    def forward(self, x: Tensor) -> Tensor:
        def folded(layer: nn.Module, x: Tensor) -> Tensor:
            return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])

        s = self.neuron1(folded(self.conv1, self.neuron0(folded(self.stem, x))))
        return self.head(self.neuron2(folded(self.conv2, s)).mean((3, 4)))


def frames(seed: int = 0, steps: int = T) -> Tensor:
    return torch.randn(steps, B, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop() -> Loop:
    torch.manual_seed(0)
    return Loop().double()


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    outputs = model(x)
    (outputs * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)).sum().backward()
    return {name.removeprefix("layers."): p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
