"""Networks of `tg.models`, small, against loops of their own over blocks, steps and neurons."""

from functools import partial

import torch
import torch.nn.functional as F
from architecture import EXAMPLES, STEPS, Architecture, spikes
from tape import Tape
from torch import Tensor, nn

import tracegrad as tg
from reference import lif
from tracegrad.snn.models.vgg import VGG


def fire(tape: Tape, neuron: nn.Module, current: Tensor, *behind: nn.Module) -> Tensor:
    fired = lif(current)
    tape.fired(neuron, fired, behind)
    return fired


class SEW(tg.models.ResNet):
    """Two stages of spike-element-wise blocks, of which the first has an identity shortcut, too."""

    def __init__(self) -> None:
        super().__init__((2, 1), num_classes=3, in_channels=2, width=3, block="sew")

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        x = fire(tape, self.neuron, self.norm(tape.synapse(self.conv, x)))
        for block in (block for stage in self.stages for block in stage):
            inner = fire(tape, block.neuron1, block.norm1(tape.synapse(block.conv1, x)), block.conv1)
            outer = fire(tape, block.neuron2, block.norm2(tape.synapse(block.conv2, inner)), block.conv2)
            if block.shortcut is not None:
                current = block.shortcut_norm(tape.synapse(block.shortcut, x))
                x = fire(tape, block.shortcut_neuron, current, block.shortcut)
            x = outer + x
        return tape.synapse(self.classifier, x.mean((3, 4)))


class MS(tg.models.ResNet):
    """Two stages of membrane-shortcut blocks: a current goes on to the neurons of all later blocks of its stage."""

    def __init__(self) -> None:
        super().__init__((2, 1), num_classes=3, in_channels=2, width=3, block="ms")

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        x, carried = self.norm(tape.synapse(self.conv, x)), []
        for block in (block for stage in self.stages for block in stage):
            outer = fire(tape, block.neuron1, x, *carried)
            inner = fire(tape, block.neuron2, block.norm1(tape.synapse(block.conv1, outer)), block.conv1)
            if block.shortcut is not None:
                x, carried = block.shortcut_norm(tape.synapse(block.shortcut, x)), []
            x = block.norm2(tape.synapse(block.conv2, inner)) + x
            carried = [*carried, block.conv2]
        return tape.synapse(self.classifier, fire(tape, self.neuron, x, *carried).mean((3, 4)))


class SmallVGG(VGG):
    """Three stages, two pools: their maxima of spikes are spikes."""

    def __init__(self) -> None:
        super().__init__(((1,), (2, 2), (2,)), num_classes=3, in_channels=2, width=2)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        for stage, layers in enumerate(self.stages):
            if stage:
                x = torch.stack([F.max_pool2d(step, 2) for step in x])
            for layer in layers:
                behind = () if layer is self.stages[0][0] else (layer.conv,)
                x = fire(tape, layer.neuron, layer.norm(tape.synapse(layer.conv, x)), *behind)
        return tape.synapse(self.classifier, x.mean((3, 4)))


class SmallRecurrent(tg.models.Recurrent):
    """Two recurrent layers, step by step."""

    def __init__(self, reset: str) -> None:
        super().__init__(num_classes=3, in_channels=6, hidden=8, layers=2, neuron=partial(tg.LIF, reset=reset))
        self.reset = reset
        for layer in self.layers:
            nn.init.constant_(layer.input.bias, 0.2)  # so that all fire in so few steps

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        for layer in self.layers:
            v, s, fired = 0.0, x.new_zeros(x.shape[1], 8), []
            for frame in x:
                u = 0.9 * v + tape.step(layer.input, frame) + tape.step(layer.recurrent, s)
                near = ((u.detach() - 0.5).abs() <= 0.5).to(u)
                s = (u.detach() >= 0.5).to(u) + (u - u.detach()) * near
                v = u - 0.5 * s if self.reset == "soft" else (1 - s) * u
                tape.fired(layer.neuron, s[None], [layer.input, layer.recurrent])
                fired.append(s)
            x = torch.stack(fired)
        return tape.synapse(self.classifier, x)


_READS_DATA = "input is the data"
_ENDS = {"conv": _READS_DATA, "classifier": "reaches none"}
_FRAMES = spikes(STEPS, EXAMPLES, 2, 8, 8)
_RECURRENT = Architecture(
    partial(SmallRecurrent, "soft"),
    spikes(STEPS, EXAMPLES, 6),
    tuple((f"layers.{layer}.{name}", f"layers.{layer}.neuron") for layer in (0, 1) for name in ("input", "recurrent")),
    {"classifier": "reaches none"},
    {"spiking_input": True},
)
ARCHITECTURES = {
    "sew-resnet": Architecture(
        SEW,
        _FRAMES,
        (
            *(
                (f"stages.{block}.conv{n}", f"stages.{block}.neuron{n}")
                for block in ("0.0", "0.1", "1.0")
                for n in (1, 2)
            ),
            *((f"stages.{block}.shortcut", f"stages.{block}.shortcut_neuron") for block in ("0.0", "1.0")),
        ),
        _ENDS,
    ),
    "ms-resnet": Architecture(
        MS,
        _FRAMES,
        (
            *((f"stages.{block}.conv1", f"stages.{block}.neuron2") for block in ("0.0", "0.1", "1.0")),
            ("stages.0.0.conv2", "stages.0.1.neuron1"),
            ("stages.0.0.conv2", "stages.1.0.neuron1"),
            ("stages.0.1.conv2", "stages.1.0.neuron1"),
            ("stages.1.0.conv2", "neuron"),
        ),
        _ENDS | {f"stages.{block}.shortcut": "in part, the current of" for block in ("0.0", "1.0")},
    ),
    "vgg": Architecture(
        SmallVGG,
        _FRAMES,
        tuple((f"stages.{layer}.conv", f"stages.{layer}.neuron") for layer in ("1.0", "1.1", "2.0")),
        {"stages.0.0.conv": _READS_DATA, "classifier": "reaches none"},
    ),
    "recurrent-soft": _RECURRENT,
    "recurrent-hard": Architecture(
        partial(SmallRecurrent, "hard"), _RECURRENT.inputs, _RECURRENT.pairs, _RECURRENT.skipped, _RECURRENT.options
    ),
}
