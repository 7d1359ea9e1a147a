"""Networks of SpikingJelly's own layers and neurons, and the equations of its neurons in loops for the reference.

Each network has the names of its twin in networks.py, whose `stepwise` form is plain PyTorch: the two share weights.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from networks import Residual as PlainResidual
from networks import Stack as PlainStack
from networks import conv as plain_conv
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_function
from torch import Tensor, nn

from reference import Tape

Factory = Callable[[], nn.Module]
STEPS = 4
THRESHOLD = 0.3


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    return layer.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Convolutional(nn.Module):
    """Stem, one hidden convolution behind a pool, average over space, classifier."""

    plain = staticmethod(lambda: PlainStack(nn.Identity, nn.MaxPool2d(2)))

    def __init__(self, fires: Factory) -> None:
        super().__init__()
        self.stem, self.norm0, self.neuron0 = _conv(2, 4), layer.BatchNorm2d(4), fires()
        self.pool = layer.MaxPool2d(2)
        self.hidden, self.norm1, self.neuron1 = _conv(4, 5), layer.BatchNorm2d(5), fires()
        self.head = layer.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.pool(self.neuron0(self.norm0(self.stem(x))))
        return self.head(self.neuron1(self.norm1(self.hidden(s))).mean((-2, -1)))


class Residual(nn.Module):
    """A block with a strided 1x1 shortcut, then a block whose shortcut is its input spikes."""

    plain = staticmethod(lambda: PlainResidual(nn.Identity))

    def __init__(self, fires: Factory) -> None:
        super().__init__()
        self.conv1, self.norm1, self.neuron1 = _conv(3, 4, stride=2), layer.BatchNorm2d(4), fires()
        self.conv2, self.norm2, self.neuron2 = _conv(4, 4), layer.BatchNorm2d(4), fires()
        self.shortcut, self.norm = _conv(3, 4, kernel=1, stride=2), layer.BatchNorm2d(4)
        self.conv3, self.norm3, self.neuron3 = _conv(4, 4), layer.BatchNorm2d(4), fires()
        self.conv4, self.norm4, self.neuron4 = _conv(4, 4), layer.BatchNorm2d(4), fires()

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron1(self.norm1(self.conv1(x)))
        block = self.neuron2(self.norm2(self.conv2(s)) + self.norm(self.shortcut(x)))
        s = self.neuron3(self.norm3(self.conv3(block)))
        return self.neuron4(self.norm4(self.conv4(s)) + block)


class ElementWise(nn.Module):
    """A spike-element-wise block (Fang et al. 2021), and one layer more."""

    def __init__(self, fires: Factory, join: str) -> None:
        super().__init__()
        self.join = join
        self.conv1, self.neuron1 = _conv(3, 3), fires()
        self.conv2, self.neuron2 = _conv(3, 3), fires()
        self.conv3, self.neuron3 = _conv(3, 4), fires()

    def plain(self) -> nn.Module:
        return PlainElementWise(self.join)

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron2(self.conv2(self.neuron1(self.conv1(x))))
        return self.neuron3(self.conv3(sew_function(x, s, self.join)))


class PlainElementWise(nn.Module):
    """The twin of `ElementWise`."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.join = {"ADD": lambda x, s: x + s, "AND": lambda x, s: x * s, "IAND": lambda x, s: x * (1 - s)}[join]
        self.conv1, self.neuron1 = plain_conv(3, 3), nn.Identity()
        self.conv2, self.neuron2 = plain_conv(3, 3), nn.Identity()
        self.conv3, self.neuron3 = plain_conv(3, 4), nn.Identity()

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, tape.synapse(self.conv1, x), [self.conv1])
        s = tape.neuron(self.neuron2, tape.synapse(self.conv2, s), [self.conv2])
        return tape.neuron(self.neuron3, tape.synapse(self.conv3, self.join(x, s)), [self.conv3])


class Stepped(nn.Module):
    """A network in single-step mode, with the loop over time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.network(frame) for frame in x])


class NormOfEachStep(nn.BatchNorm2d):
    """Plain PyTorch's norm of [T * B, ...] with statistics of each step alone, as single-step mode has them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(NormOfEachStep, self).forward(step) for step in x.chunk(STEPS)])


def twin(model: nn.Module, neurons: bool = False) -> nn.Module:
    """The network in plain PyTorch, with the same weights; `neurons`: with the model's own neurons, in all steps."""
    network = model.network if isinstance(model, Stepped) else model
    plain = network.plain().double()
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and isinstance(model, Stepped):
            module.__class__ = NormOfEachStep
        if isinstance(module, nn.Identity) and neurons:
            setattr(plain, name, deepcopy(network.get_submodule(name)))
            functional.set_step_mode(plain.get_submodule(name), "m")
    plain.load_state_dict(network.state_dict())
    return plain


@dataclass(frozen=True)
class Dynamics:
    """A neuron of SpikingJelly and the same equations in a loop."""

    build: Factory
    charge: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    reset: float | None = 0.0

    def fire(self, current: Tensor) -> Tensor:
        v, steps = torch.full_like(current[0], self.reset or 0.0), []
        for z in current:
            h = self.charge(v, z)
            over = h.detach() - THRESHOLD
            s = (over >= 0).to(h) + (h - h.detach()) * self.slope(over)
            v = h - s * THRESHOLD if self.reset is None else (1 - s) * h + s * self.reset
            steps.append(s)
        return torch.stack(steps)


def _sigmoid_slope(over: Tensor) -> Tensor:
    value = torch.sigmoid(4 * over)
    return 4 * value * (1 - value)


def _arctangent_slope(over: Tensor) -> Tensor:
    return 1 / (1 + (math.pi * over) ** 2)


DYNAMICS = {
    "LIF": Dynamics(
        lambda: neuron.LIFNode(tau=2.0, v_threshold=THRESHOLD, v_reset=-0.1),
        lambda v, z: v + (z - (v + 0.1)) / 2.0,
        _sigmoid_slope,
        reset=-0.1,
    ),
    "IF": Dynamics(
        lambda: neuron.IFNode(v_threshold=THRESHOLD, v_reset=None, surrogate_function=surrogate.ATan()),
        lambda v, z: v + z,
        _arctangent_slope,
        reset=None,
    ),
}
NETWORKS = {"convolutional": Convolutional, "residual": Residual}
ELEMENT_WISE = {f"element-wise {join}": partial(ElementWise, join=join) for join in ("ADD", "AND", "IAND")}


def build(name: str, mode: str, dynamics: Dynamics) -> nn.Module:
    """A network in step mode "m" or "s", float64; it takes [T, B, ...] in both."""
    torch.manual_seed(0)
    network = (NETWORKS | ELEMENT_WISE)[name](dynamics.build).double()
    functional.set_step_mode(network, mode)
    return network if mode == "m" else Stepped(network)


def frames(name: str, steps: int = STEPS, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        steps, batch, *((2, 6, 6) if name == "convolutional" else (3, 6, 6)), generator=generator, dtype=torch.float64
    )
    return x if name == "convolutional" else (x > 0).double()


def digits_network(mode: str) -> nn.Module:
    """A small network for images [T, B, 1, 8, 8] of ten classes."""
    network = nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1, bias=False),
        layer.BatchNorm2d(8),
        neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
        layer.MaxPool2d(2),
        layer.Conv2d(8, 16, 3, padding=1, bias=False),
        layer.BatchNorm2d(16),
        neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
        layer.Flatten(),
        layer.Linear(256, 10),
    )
    functional.set_step_mode(network, mode)
    return network if mode == "m" else Stepped(network)
