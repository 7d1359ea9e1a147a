"""Membrane shortcuts, convolutions with a loop over time of their own, and convolutions in a chain."""

import torch
import torch.nn.functional as F
from architecture import EXAMPLES, Architecture, T, reals
from spiking import TimeFirst, Written, folded
from tape import Tape
from torch import Tensor, nn


class Conv(nn.Conv2d):
    """A convolution of [T, B, C, H, W] that loops over time itself; the steps are written into zeros, or stacked."""

    def __init__(self, inputs: int, outputs: int, how: str, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        def current(frame: Tensor) -> Tensor:
            return F.conv2d(frame, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

        if self.how == "stacked":
            return torch.stack([current(frame) for frame in x])
        sizes = [(size + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1 for size in x.shape[3:]]
        out = torch.zeros(*x.shape[:2], self.out_channels, *sizes, dtype=x.dtype)
        for t in range(len(x)):
            out[t] = current(x[t])
        return out


class Norm(nn.BatchNorm3d):
    """A norm of [T, B, C, H, W], statistics over time too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)


class MembraneBlock(nn.Module):
    """Neuron, convolution, norm, twice; currents are added to the shortcut's."""

    def __init__(self, inputs: int, outputs: int, how: str, stride: int = 1) -> None:
        super().__init__()
        self.lif1, self.conv1, self.norm1 = Written(), Conv(inputs, outputs, how, stride=stride), Norm(outputs)
        self.lif2, self.conv2, self.norm2 = Written(), Conv(outputs, outputs, how), Norm(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(Conv(inputs, outputs, how, 1, stride), Norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm1(self.conv1(self.lif1(x)))
        return self.norm2(self.conv2(self.lif2(z))) + self.shortcut(x)


class MembraneResNet(nn.Module):
    """Modelled on MS-ResNet: three blocks, the second with a convolution of currents as its shortcut."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem, self.norm = Conv(2, 3, how), Norm(3)
        self.block1, self.block2 = MembraneBlock(3, 3, how), MembraneBlock(3, 4, how, stride=2)
        self.block3, self.lif, self.fc = MembraneBlock(4, 4, how), Written(), nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        x = self.block3(self.block2(self.block1(self.norm(self.stem(x)))))
        return self.fc(self.lif(x).mean((3, 4))).mean(0)

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        x, behind = self.norm(tape.synapse(self.stem, image.expand(T, *image.shape))), []
        for block in (self.block1, self.block2, self.block3):
            z = block.norm1(tape.synapse(block.conv1, tape.neuron(block.lif1, x, behind)))
            z = block.norm2(tape.synapse(block.conv2, tape.neuron(block.lif2, z, [block.conv1])))
            if len(block.shortcut):
                conv, norm = block.shortcut
                x, behind = z + norm(tape.synapse(conv, x)), [block.conv2]
            else:
                x, behind = z + x, [*behind, block.conv2]
        s = tape.neuron(self.lif, x, behind)
        return tape.synapse(self.fc, s.mean((3, 4))).mean(0)


def conv(inputs: int, outputs: int, kernel: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)


class RepConv(nn.Module):
    """A chain of convolutions without a neuron in between."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand, self.norm1 = conv(inputs, inputs), nn.BatchNorm2d(inputs)
        self.depthwise = conv(inputs, inputs, 3, groups=inputs)
        self.project, self.norm2 = conv(inputs, outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.norm1(self.expand(x)), (1, 1, 1, 1))
        return self.norm2(self.project(self.depthwise(x)))


class ChainedConvolutions(nn.Module):
    """Modelled on Spike-driven Transformer V2: re-parametrised and separable convolutions between neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0, self.lif0 = conv(2, 4, 3, padding=1), nn.BatchNorm2d(4), TimeFirst()
        self.rep, self.lif1 = RepConv(4, 4), TimeFirst()
        self.up, self.norm1, self.lif2 = conv(4, 6), nn.BatchNorm2d(6), TimeFirst()
        self.depthwise = conv(6, 6, 3, padding=1, groups=6)
        self.down, self.norm2, self.lif3 = conv(6, 4), nn.BatchNorm2d(4), TimeFirst()
        self.fc = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = image.unsqueeze(0).repeat(T, 1, 1, 1, 1)
        s = self.lif0(folded(self.norm0, folded(self.stem, x)))
        s = self.lif1(folded(self.rep, s))
        s = self.lif2(folded(self.norm1, folded(self.up, s)))
        s = self.lif3(folded(self.norm2, folded(self.down, folded(self.depthwise, s))))
        return self.fc(s.flatten(3).mean(3).mean(0))

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        s = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.stem, x)))
        z = F.pad(folded(self.rep.norm1, tape.synapse(self.rep.expand, s)), (1, 1, 1, 1))
        z = tape.synapse(self.rep.project, tape.synapse(self.rep.depthwise, z))
        s = tape.neuron(self.lif1, folded(self.rep.norm2, z))
        s = tape.neuron(self.lif2, folded(self.norm1, tape.synapse(self.up, s)), [self.up])
        z = tape.synapse(self.down, tape.synapse(self.depthwise, s))
        s = tape.neuron(self.lif3, folded(self.norm2, z))
        return self.fc(s.mean((3, 4)).mean(0))


_MEMBRANE_PAIRS = (
    ("block1.conv1", "block1.lif2"),
    ("block1.conv2", "block2.lif1"),
    ("block2.conv1", "block2.lif2"),
    ("block2.conv2", "block3.lif1"),
    ("block2.conv2", "lif"),
    ("block3.conv1", "block3.lif2"),
    ("block3.conv2", "lif"),
)
_MEMBRANE_SKIPPED = {"stem": "data", "block2.shortcut.0": r"current of (stem|block1\.conv2)", "fc": "reaches no"}
ARCHITECTURES = {
    "membrane-written": Architecture(
        lambda: MembraneResNet("written"), reals(EXAMPLES, 2, 6, 6), _MEMBRANE_PAIRS, _MEMBRANE_SKIPPED
    ),
    "membrane-stacked": Architecture(
        lambda: MembraneResNet("stacked"), reals(EXAMPLES, 2, 6, 6), _MEMBRANE_PAIRS, _MEMBRANE_SKIPPED
    ),
    "chained": Architecture(
        ChainedConvolutions,
        reals(EXAMPLES, 2, 6, 6),
        (("up", "lif2"),),
        {
            "stem": "data",
            "rep.expand": r"rep\.depthwise",
            "rep.depthwise": r"current of rep\.expand",
            "rep.project": r"current of rep\.depthwise",
            "depthwise": "down",
            "down": "current of depthwise",
            "fc": "reaches no",
        },
    ),
}
