"""Weights in use that are functions of parameters: the scaled gradient is that of the weight in use."""

import torch
import torch.nn.functional as F
from architecture import EXAMPLES, STEPS, Architecture, T, reals, spikes
from spiking import TimeFirst, folded
from tape import Tape
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization


class StandardizedConv(nn.Conv2d):
    """A convolution whose weight has mean 0 and variance 1 / fan-in per output channel, times a trainable gain."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.linspace(0.9, 1.6, outputs).reshape(-1, 1, 1, 1))

    def standardized(self) -> Tensor:
        fan_in = self.weight[0].numel()
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return self.gain * (self.weight - mean) / torch.sqrt(variance * fan_in + 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.standardized()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StandardizedVGG(nn.Module):
    """Modelled on norm-free VGGs with weight standardisation (OTTT, SLTT): no batch norm, scaled weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.lif0 = StandardizedConv(2, 4), TimeFirst()
        self.conv1, self.lif1 = StandardizedConv(4, 5), TimeFirst()
        self.pool, self.conv2, self.lif2 = nn.AvgPool2d(2), StandardizedConv(5, 4), TimeFirst()
        self.fc = nn.Linear(36, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        s = self.lif1(folded(self.conv1, self.lif0(folded(self.conv0, x))))
        s = self.lif2(folded(self.conv2, folded(self.pool, s)))
        return self.fc(s.flatten(2))

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        def current(conv: StandardizedConv, x: Tensor) -> Tensor:
            return tape.synapse(conv, x, weight=conv.standardized())

        s = tape.neuron(self.lif0, current(self.conv0, image.expand(T, *image.shape)))
        s = tape.neuron(self.lif1, current(self.conv1, s), [self.conv1])
        s = tape.neuron(self.lif2, current(self.conv2, folded(self.pool, s)), [self.conv2])
        return tape.synapse(self.fc, s.flatten(2))


def normed(layer: nn.Module) -> nn.Module:
    """A layer under `weight_norm`, with filters twice as long as they were."""
    weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2)
    return layer


class WeightNormed(nn.Module):
    """Convolution and linear layer under torch's `weight_norm`: a direction and a length per output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.lif0 = normed(nn.Conv2d(2, 4, 3, padding=1)), TimeFirst()
        self.conv1, self.lif1 = normed(nn.Conv2d(4, 4, 3, stride=2)), TimeFirst()
        self.fc0, self.lif2 = normed(nn.Linear(16, 6)), TimeFirst()
        self.fc1 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif1(folded(self.conv1, self.lif0(folded(self.conv0, x))))
        return self.fc1(self.lif2(self.fc0(s.flatten(2))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, tape.synapse(self.conv0, x), [self.conv0])
        s = tape.neuron(self.lif1, tape.synapse(self.conv1, s), [self.conv1])
        s = tape.neuron(self.lif2, tape.synapse(self.fc0, s.flatten(2)), [self.fc0])
        return tape.synapse(self.fc1, s)


class Adapted(nn.Module):
    """A frozen linear layer beside two thin ones that train, as PEFT wraps them."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        self.scaling = 0.7

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_B(self.lora_A(x)) * self.scaling


class LowRank(nn.Module):
    """The parametrisation W + B A."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(torch.randn(rank, inputs) / 2), nn.Parameter(torch.randn(outputs, rank) / 2)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.B @ self.A


class LowRankLinear(nn.Linear):
    """A linear layer with the weight function W + B A in its own forward pass; W is frozen."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.low_rank = LowRank(inputs, outputs, rank)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.low_rank(self.weight), self.bias)


class LowRankAdapters(nn.Module):
    """Modelled on LoRA: adapters as layers (PEFT), as a parametrisation, and inside the layer's forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.adapted, self.lif0 = Adapted(7, 6, 2), TimeFirst()
        self.parametrized, self.lif1 = nn.Linear(6, 6).requires_grad_(False), TimeFirst()
        register_parametrization(self.parametrized, "weight", LowRank(6, 6, 2))
        self.function, self.lif2 = LowRankLinear(6, 5, 2), TimeFirst()
        self.fc, self.lif3, self.head = nn.Linear(5, 5), TimeFirst(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif1(self.parametrized(self.lif0(self.adapted(x))))
        return self.head(self.lif3(self.fc(self.lif2(self.function(s)))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        adapted = self.adapted
        added = tape.synapse(adapted.lora_B, tape.synapse(adapted.lora_A, x)) * adapted.scaling
        s = tape.neuron(self.lif0, adapted.base(x) + added)
        s = tape.neuron(self.lif1, tape.synapse(self.parametrized, s), [self.parametrized])
        weight = self.function.low_rank(self.function.weight)
        s = tape.neuron(self.lif2, tape.synapse(self.function, s, weight), [self.function])
        s = tape.neuron(self.lif3, tape.synapse(self.fc, s), [self.fc])
        return tape.synapse(self.head, s)


ARCHITECTURES = {
    "weight-standardized": Architecture(
        StandardizedVGG,
        reals(EXAMPLES, 2, 6, 6),
        (("conv1", "lif1"), ("conv2", "lif2")),
        {"conv0": "data", "fc": "reaches no"},
    ),
    "weight-norm": Architecture(
        WeightNormed,
        spikes(STEPS, EXAMPLES, 2, 6, 6),
        (("conv0", "lif0"), ("conv1", "lif1"), ("fc0", "lif2")),
        {"fc1": "reaches no"},
        {"spiking_input": True},
    ),
    "low-rank-adapters": Architecture(
        LowRankAdapters,
        spikes(STEPS, EXAMPLES, 7),
        (("parametrized", "lif1"), ("function", "lif2"), ("fc", "lif3")),
        {
            "adapted.lora_A": r"adapted\.lora_B",
            "adapted.lora_B": r"current of adapted\.lora_A",
            "head": "reaches no",
        },
        {"spiking_input": True},
        frozen=("adapted.base",),
    ),
}
