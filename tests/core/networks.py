"""Small networks in two forms: `forward`, time folded into the batch as users do, and `stepwise`, for the reference.

`neuron` is a factory () -> module on currents [T, B, ...].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reference import Tape

T, B = 4, 3
SOFT = {"leak": 0.9, "threshold": 0.5, "reset": "soft", "rest": 0.0}
HARD = SOFT | {"reset": "hard"}
OTHER = {"leak": 0.6, "threshold": 0.4, "reset": "hard", "rest": -0.15}
DYNAMICS = {"soft": SOFT, "hard": HARD, "hard-with-rest": OTHER}
Factory = Callable[[], nn.Module]


def folded(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def apply(synapse: nn.Module, x: Tensor) -> Tensor:
    return synapse(x) if isinstance(synapse, nn.Linear) else folded(synapse, x)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Single(nn.Module):
    """One synapse, which gets spikes as its input, and its neuron."""

    def __init__(self, neuron: Factory, synapse: nn.Module) -> None:
        super().__init__()
        self.synapse, self.neuron = synapse, neuron()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(apply(self.synapse, x))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        return tape.neuron(self.neuron, tape.synapse(self.synapse, x), [self.synapse])


class FoldedLinear(Single):
    """A linear layer that gets [T * B, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(folded(self.synapse, x))


class Stack(nn.Module):
    """Stem, one hidden convolution, average over space, classifier; a pool may follow the first neuron."""

    def __init__(self, neuron: Factory, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.norm0, self.neuron0 = conv(2, 4), nn.BatchNorm2d(4), neuron()
        self.pool = nn.Identity() if pool is None else pool
        self.hidden, self.norm1, self.neuron1 = conv(4, 5), nn.BatchNorm2d(5), neuron()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron0(folded(self.norm0, folded(self.stem, x)))
        s = folded(self.pool, s)
        s = self.neuron1(folded(self.norm1, folded(self.hidden, s)))
        return self.head(s.mean((3, 4)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron0, folded(self.norm0, tape.synapse(self.stem, x)), [])
        s = torch.stack([self.pool(frame) for frame in s])
        s = tape.neuron(self.neuron1, folded(self.norm1, tape.synapse(self.hidden, s)), [self.hidden])
        return tape.synapse(self.head, s.mean((3, 4)))


class Residual(nn.Module):
    """A block with a strided 1x1 shortcut, then a block whose shortcut is its input spikes."""

    def __init__(self, neuron: Factory) -> None:
        super().__init__()
        self.conv1, self.norm1, self.neuron1 = conv(3, 4, stride=2), nn.BatchNorm2d(4), neuron()
        self.conv2, self.norm2, self.neuron2 = conv(4, 4), nn.BatchNorm2d(4), neuron()
        self.shortcut, self.norm = conv(3, 4, kernel=1, stride=2), nn.BatchNorm2d(4)
        self.conv3, self.norm3, self.neuron3 = conv(4, 4), nn.BatchNorm2d(4), neuron()
        self.conv4, self.norm4, self.neuron4 = conv(4, 4), nn.BatchNorm2d(4), neuron()

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron1(folded(self.norm1, folded(self.conv1, x)))
        current = folded(self.norm2, folded(self.conv2, s)) + folded(self.norm, folded(self.shortcut, x))
        block = self.neuron2(current)
        s = self.neuron3(folded(self.norm3, folded(self.conv3, block)))
        return self.neuron4(folded(self.norm4, folded(self.conv4, s)) + block)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, folded(self.norm1, tape.synapse(self.conv1, x)), [self.conv1])
        current = folded(self.norm2, tape.synapse(self.conv2, s)) + folded(self.norm, tape.synapse(self.shortcut, x))
        block = tape.neuron(self.neuron2, current, [self.conv2, self.shortcut])
        s = tape.neuron(self.neuron3, folded(self.norm3, tape.synapse(self.conv3, block)), [self.conv3])
        return tape.neuron(self.neuron4, folded(self.norm4, tape.synapse(self.conv4, s)) + block, [self.conv4])


class Fork(nn.Module):
    """Two neurons behind one synapse, one of them behind a norm as well."""

    def __init__(self, neuron: Factory) -> None:
        super().__init__()
        self.synapse, self.norm = conv(3, 4), nn.BatchNorm2d(4)
        self.left, self.right = neuron(), neuron()

    def forward(self, x: Tensor) -> Tensor:
        current = folded(self.synapse, x)
        return torch.cat([self.left(current), self.right(folded(self.norm, current))], 2)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        current = tape.synapse(self.synapse, x)
        left = tape.neuron(self.left, current, [self.synapse])
        return torch.cat([left, tape.neuron(self.right, folded(self.norm, current), [self.synapse])], 2)


class Joined(nn.Module):
    """The spikes of two neurons joined (added or concatenated) before the next synapse."""

    def __init__(self, neuron: Factory, join: Callable[[Tensor, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.join = join
        self.first, self.neuron1 = nn.Conv2d(3, 3, 3, padding=1), neuron()
        self.second, self.neuron2 = nn.Conv2d(channels, 4, 3, padding=1), neuron()

    def forward(self, x: Tensor) -> Tensor:
        s = self.join(self.neuron1(folded(self.first, x)), x)
        return self.neuron2(folded(self.second, s))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = self.join(tape.neuron(self.neuron1, tape.synapse(self.first, x), [self.first]), x)
        return tape.neuron(self.neuron2, tape.synapse(self.second, s), [self.second])


class Flat(nn.Module):
    """A convolution's spikes, flattened into a linear layer."""

    def __init__(self, neuron: Factory) -> None:
        super().__init__()
        self.conv, self.neuron1 = nn.Conv2d(2, 3, 3), neuron()
        self.linear, self.neuron2 = nn.Linear(27, 6), neuron()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron2(self.linear(self.neuron1(folded(self.conv, x)).flatten(2)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, tape.synapse(self.conv, x), [self.conv])
        return tape.neuron(self.neuron2, tape.synapse(self.linear, s.flatten(2)), [self.linear])


class Tokens(nn.Module):
    """A convolution's spikes as tokens [T, B, N, D]; the linear layer's norm wants the features before them."""

    def __init__(self, neuron: Factory) -> None:
        super().__init__()
        self.conv, self.neuron1 = nn.Conv2d(2, 4, 3), neuron()
        self.linear, self.norm, self.neuron2 = nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), neuron()

    def normalised(self, current: Tensor) -> Tensor:
        return folded(self.norm, current.transpose(2, 3)).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.neuron1(folded(self.conv, x)).flatten(3).transpose(2, 3)
        return self.neuron2(self.normalised(self.linear(tokens)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, tape.synapse(self.conv, x), [self.conv])
        current = tape.synapse(self.linear, s.flatten(3).transpose(2, 3))
        return tape.neuron(self.neuron2, self.normalised(current), [self.linear])


class StepWeighted(nn.Module):
    """The normalised current times a trainable factor for each step (TEBN's form)."""

    def __init__(self, neuron: Factory) -> None:
        super().__init__()
        self.synapse, self.norm, self.neuron = conv(3, 4), nn.BatchNorm2d(4), neuron()
        self.factor = nn.Parameter(torch.linspace(0.8, 1.3, T).reshape(T, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.factor * folded(self.norm, folded(self.synapse, x)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        current = self.factor * folded(self.norm, tape.synapse(self.synapse, x))
        return tape.neuron(self.neuron, current, [self.synapse])


@dataclass(frozen=True)
class Case:
    """A network and the shape of one step of its input; the input is spikes unless `real`."""

    build: Callable[[Factory], nn.Module]
    frame: tuple[int, ...]
    real: bool = False

    def network(self, neuron: Factory) -> nn.Module:
        torch.manual_seed(0)
        return self.build(neuron).double()

    def input(self, steps: int = T, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(steps, B, *self.frame, generator=generator, dtype=torch.float64)
        return x if self.real else (x > 0).double()


def _single(kind: type[nn.Module], *args, network: type[nn.Module] = Single, **kwargs) -> Callable:
    return lambda neuron: network(neuron, kind(*args, **kwargs))


IMAGE, SIGNAL = (3, 6, 6), (3, 9)
CASES = {
    "conv2d": Case(_single(nn.Conv2d, 3, 3, 3, padding=1), IMAGE),
    "conv2d-strided": Case(_single(nn.Conv2d, 3, 3, 3, stride=2, padding=1), IMAGE),
    "conv2d-grouped": Case(_single(nn.Conv2d, 4, 6, 3, padding=1, groups=2), (4, 5, 5)),
    "conv2d-depthwise": Case(_single(nn.Conv2d, 4, 4, 3, padding=1, groups=4), (4, 5, 5)),
    "conv2d-dilated": Case(_single(nn.Conv2d, 3, 4, 3, padding=2, dilation=2), IMAGE),
    "conv2d-shape-changing": Case(_single(nn.Conv2d, 3, 5, 3, stride=2), (3, 8, 7)),
    "conv2d-uneven": Case(_single(nn.Conv2d, 3, 4, (2, 3), (1, 2), (0, 1), (2, 1)), (3, 6, 8)),
    "conv2d-same": Case(_single(nn.Conv2d, 3, 4, (2, 3), padding="same", dilation=(2, 1)), IMAGE),
    "conv2d-same-uneven": Case(_single(nn.Conv2d, 3, 4, (2, 4), padding="same"), IMAGE),
    "conv2d-1x1-strided": Case(_single(nn.Conv2d, 3, 5, 1, stride=2), IMAGE),
    "conv1d": Case(_single(nn.Conv1d, 3, 4, 3, padding=1), SIGNAL),
    "conv1d-strided": Case(_single(nn.Conv1d, 3, 4, 3, stride=2, padding=1), SIGNAL),
    "conv1d-dilated": Case(_single(nn.Conv1d, 3, 4, 3, dilation=2), SIGNAL),
    "conv1d-grouped-strided-dilated": Case(_single(nn.Conv1d, 4, 6, 3, 2, 1, 2, groups=2), (4, 9)),
    "linear": Case(_single(nn.Linear, 7, 5), (7,)),
    "linear-tokens": Case(_single(nn.Linear, 7, 5), (4, 7)),
    "linear-folded": Case(_single(nn.Linear, 7, 5, network=FoldedLinear), (7,)),
    "linear-tokens-folded": Case(_single(nn.Linear, 7, 5, network=FoldedLinear), (4, 7)),
    "stack": Case(Stack, (2, 6, 6), real=True),
    "max-pool": Case(lambda neuron: Stack(neuron, nn.MaxPool2d(2)), (2, 6, 6), real=True),
    "avg-pool": Case(lambda neuron: Stack(neuron, nn.AvgPool2d(2)), (2, 6, 6), real=True),
    "residual": Case(Residual, IMAGE),
    "fork": Case(Fork, IMAGE),
    "added-spikes": Case(lambda neuron: Joined(neuron, torch.add, 3), IMAGE),
    "concatenated-spikes": Case(lambda neuron: Joined(neuron, lambda a, b: torch.cat([a, b], 2), 6), IMAGE),
    "flattened": Case(Flat, (2, 5, 5)),
    "tokens": Case(Tokens, (2, 5, 5)),
    "step-weighted": Case(StepWeighted, IMAGE),
}
