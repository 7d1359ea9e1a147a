"""Networks whose neurons take time second, last, or folded into the batch."""

import torch
from architecture import EXAMPLES, STEPS, Architecture, T, reals, spikes
from spiking import BatchFirst, FoldedBatchFirst, FoldedTimeFirst, TimeFirst, TimeLast, folded
from tape import Tape
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BatchFirstVGG(nn.Module):
    """Modelled on TET's VGG: frames [B, T, C, H, W] pass layers as [B * T, ...], neurons as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0, self.lif0 = conv(2, 4), nn.BatchNorm2d(4), BatchFirst()
        self.conv1, self.norm1, self.lif1 = conv(4, 5), nn.BatchNorm2d(5), BatchFirst()
        self.pool = nn.AvgPool2d(2)
        self.conv2, self.norm2, self.lif2 = conv(5, 3), nn.BatchNorm2d(3), BatchFirst()
        self.fc = nn.Linear(27, 4)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif0(folded(self.norm0, folded(self.conv0, x)))
        s = self.lif1(folded(self.norm1, folded(self.conv1, s)))
        s = self.lif2(folded(self.norm2, folded(self.conv2, folded(self.pool, s))))
        return self.fc(s.flatten(2))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.conv0, x.transpose(0, 1))))
        s = tape.neuron(self.lif1, folded(self.norm1, tape.synapse(self.conv1, s)), [self.conv1])
        s = folded(self.pool, s)
        s = tape.neuron(self.lif2, folded(self.norm2, tape.synapse(self.conv2, s)), [self.conv2])
        return tape.synapse(self.fc, s.flatten(2)).transpose(0, 1)


class BatchFirstDense(nn.Module):
    """Modelled on sparch's feed-forward networks: event sequences [B, T, F], a norm over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.norm0, self.lif0 = nn.Linear(7, 6, bias=False), nn.BatchNorm1d(6), BatchFirst()
        self.fc1, self.norm1, self.lif1 = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), BatchFirst()
        self.fc2 = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif0(folded(self.norm0, self.fc0(x)))
        s = self.lif1(folded(self.norm1, self.fc1(s)))
        return self.fc2(s).cumsum(1)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        current = folded(self.norm0, tape.synapse(self.fc0, x.transpose(0, 1)))
        s = tape.neuron(self.lif0, current, [self.fc0])
        s = tape.neuron(self.lif1, folded(self.norm1, tape.synapse(self.fc1, s)), [self.fc1])
        return tape.synapse(self.fc2, s).transpose(0, 1).cumsum(1)


class FoldedResidual(nn.Module):
    """Modelled on DSR's networks: everything is [T * B, ...], and neurons take it apart by a T of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0, self.lif0 = conv(2, 4), nn.BatchNorm2d(4), FoldedTimeFirst(T)
        self.conv1, self.norm1, self.lif1 = conv(4, 5, stride=2), nn.BatchNorm2d(5), FoldedTimeFirst(T)
        self.conv2, self.norm2, self.lif2 = conv(5, 5), nn.BatchNorm2d(5), FoldedTimeFirst(T)
        self.shortcut, self.norm = conv(4, 5, kernel=1, stride=2), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = image.repeat(T, 1, 1, 1)
        block = self.lif0(self.norm0(self.conv0(x)))
        s = self.lif1(self.norm1(self.conv1(block)))
        s = self.lif2(self.norm2(self.conv2(s)) + self.norm(self.shortcut(block)))
        return self.fc(s.mean((2, 3))).unflatten(0, (T, -1)).mean(0)

    def stepwise(self, tape: Tape, image: Tensor) -> Tensor:
        x = image.expand(T, *image.shape)
        block = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.conv0, x)))
        s = tape.neuron(self.lif1, folded(self.norm1, tape.synapse(self.conv1, block)), [self.conv1])
        current = folded(self.norm2, tape.synapse(self.conv2, s))
        current = current + folded(self.norm, tape.synapse(self.shortcut, block))
        s = tape.neuron(self.lif2, current, [self.conv2, self.shortcut])
        return tape.synapse(self.fc, s.mean((3, 4))).mean(0)


class Squeezed(nn.Module):
    """Modelled on sinabs' `Squeeze` layers: everything is [B * T, ...], examples before steps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(2, 4), FoldedBatchFirst(T), nn.MaxPool2d(2), conv(4, 5), FoldedBatchFirst(T))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(45, 6), FoldedBatchFirst(T), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x.flatten(0, 1))).unflatten(0, (-1, T))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        conv0, lif0, pool, conv1, lif1 = self.features
        _, fc0, lif2, fc1 = self.classifier
        s = tape.neuron(lif0, tape.synapse(conv0, x.transpose(0, 1)), [conv0])
        s = tape.neuron(lif1, tape.synapse(conv1, folded(pool, s)), [conv1])
        s = tape.neuron(lif2, tape.synapse(fc0, s.flatten(2)), [fc0])
        return tape.synapse(fc1, s).transpose(0, 1)


class StepByStep(nn.Module):
    """A wrapper that gives a layer one step of [B, ..., T] after another and collects what comes back, time last.

    "written": into zeros, whose shape one more call of the layer tells. "stacked": no such call.
    """

    def __init__(self, layer: nn.Module, how: str, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.how, self.norm = layer, how, norm

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[-1]
        if self.how == "written":
            out = torch.zeros((*self.layer(x[..., 0]).shape, steps), dtype=x.dtype)
            for t in range(steps):
                out[..., t] = self.layer(x[..., t])
        else:
            out = torch.stack([self.layer(x[..., t]) for t in range(steps)], dim=-1)
        return out if self.norm is None else self.norm(out)


class NormOverTime(nn.BatchNorm2d):
    """Modelled on tdBN for [B, C, H, W, T]: steps are further rows of the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(3)).view(x.shape)


class TimeLastNetwork(nn.Module):
    """Modelled on STBP-simple: tensors [B, C, H, W, T], wrapped layers, time-last neurons."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv0, self.lif0 = StepByStep(conv(2, 4), how, NormOverTime(4)), TimeLast()
        self.pool = StepByStep(nn.AvgPool2d(2), how)
        self.conv1, self.lif1 = StepByStep(conv(4, 5), how, NormOverTime(5)), TimeLast()
        self.fc0, self.lif2 = StepByStep(nn.Linear(45, 6), how), TimeLast()
        self.fc1 = StepByStep(nn.Linear(6, 4), how)

    def forward(self, x: Tensor) -> Tensor:
        s = self.pool(self.lif0(self.conv0(x)))
        s = self.lif1(self.conv1(s))
        s = self.lif2(self.fc0(s.view(len(s), -1, s.shape[-1])))
        return self.fc1(s).mean(-1)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        def current(wrapper: StepByStep, x: Tensor) -> Tensor:
            z = tape.synapse(wrapper.layer, x)
            return z if wrapper.norm is None else wrapper.norm(z.movedim(0, -1)).movedim(-1, 0)

        s = tape.neuron(self.lif0, current(self.conv0, x.movedim(-1, 0)))
        s = folded(self.pool.layer, s)
        s = tape.neuron(self.lif1, current(self.conv1, s), [self.conv1.layer])
        s = tape.neuron(self.lif2, current(self.fc0, s.flatten(2)), [self.fc0.layer])
        return current(self.fc1, s).mean(0)


class Events(nn.Module):
    """Event data whose time is brought to the front inside the model; `order` says where each dimension comes from."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.conv, self.lif0 = conv(2, 4), TimeFirst()
        self.fc0, self.lif1, self.fc1 = nn.Linear(100, 6), TimeFirst(), nn.Linear(6, 3)

    def forward(self, events: Tensor) -> Tensor:
        x = events.permute(self.order)
        s = self.lif0(folded(self.conv, x))
        return self.fc1(self.lif1(self.fc0(s.flatten(2))))

    def stepwise(self, tape: Tape, events: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, tape.synapse(self.conv, events.permute(self.order)), [self.conv])
        return tape.synapse(self.fc1, tape.neuron(self.lif1, tape.synapse(self.fc0, s.flatten(2)), [self.fc0]))


class FoldedEvents(Events):
    """Event data [B, T, ...] that passes the first layer as [B * T, ...] and is brought in order behind it."""

    def forward(self, events: Tensor) -> Tensor:
        z = self.conv(events.flatten(0, 1)).unflatten(0, events.shape[:2])
        s = self.lif0(z.transpose(0, 1))
        return self.fc1(self.lif1(self.fc0(s.flatten(2))))


_VGG = (("conv1", "lif1"), ("conv2", "lif2"))
_LAST = (("conv1.layer", "lif1"), ("fc0.layer", "lif2"))
_LAST_SKIPPED = {"conv0.layer": "data", "fc1.layer": "reaches no"}
_SPIKES = {"spiking_input": True}


def _events(network: type[Events], order: tuple[int, ...], *shape: int) -> Architecture:
    pairs = (("conv", "lif0"), ("fc0", "lif1"))
    return Architecture(lambda: network(order), spikes(*shape), pairs, {"fc1": "reaches no"}, _SPIKES)


ARCHITECTURES = {
    "events-transposed": _events(Events, (1, 0, 2, 3, 4), EXAMPLES, STEPS, 2, 5, 5),
    "events-time-last": _events(Events, (4, 0, 1, 2, 3), EXAMPLES, 2, 5, 5, STEPS),
    "events-channels-first": _events(Events, (2, 0, 1, 3, 4), EXAMPLES, 2, STEPS, 5, 5),
    "events-folded": _events(FoldedEvents, (1, 0, 2, 3, 4), EXAMPLES, STEPS, 2, 5, 5),
    "batch-first-vgg": Architecture(
        BatchFirstVGG, reals(EXAMPLES, STEPS, 2, 6, 6), _VGG, {"conv0": "data", "fc": "reaches no"}
    ),
    "batch-first-dense": Architecture(
        BatchFirstDense,
        spikes(EXAMPLES, STEPS, 7),
        (("fc0", "lif0"), ("fc1", "lif1")),
        {"fc2": "reaches no"},
        _SPIKES,
    ),
    "folded-residual": Architecture(
        FoldedResidual,
        reals(EXAMPLES, 2, 6, 6),
        (("conv1", "lif1"), ("conv2", "lif2"), ("shortcut", "lif2")),
        {"conv0": "data", "fc": "reaches no"},
    ),
    "folded-batch-first": Architecture(
        Squeezed,
        spikes(EXAMPLES, STEPS, 2, 6, 6),
        (("features.0", "features.1"), ("features.3", "features.4"), ("classifier.1", "classifier.2")),
        {"classifier.3": "reaches no"},
        _SPIKES,
    ),
    "time-last-written": Architecture(
        lambda: TimeLastNetwork("written"), reals(EXAMPLES, 2, 6, 6, STEPS), _LAST, _LAST_SKIPPED
    ),
    "time-last-stacked": Architecture(
        lambda: TimeLastNetwork("stacked"), reals(EXAMPLES, 2, 6, 6, STEPS), _LAST, _LAST_SKIPPED
    ),
}
