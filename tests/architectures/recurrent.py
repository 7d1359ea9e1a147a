"""Recurrent synapses: what they get at a step is the spikes of the step before, and zeros at the first one."""

import torch
import torch.nn.functional as F
from architecture import EXAMPLES, STEPS, Architecture, spikes
from spiking import Fire, Passed, Stateful, TimeFirst
from tape import Tape
from torch import Tensor, nn

import tracegrad as tg


class Synaptic(nn.Module):
    """A step of a neuron with a synaptic current; both states are passed in and come back."""

    alpha, beta, threshold = 0.7, 0.8, 0.6

    def forward(
        self, current: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        synapse, membrane = (torch.zeros_like(current),) * 2 if state is None else state
        synapse = self.alpha * synapse + current
        membrane = self.beta * membrane + synapse
        fired = Fire.apply(membrane - self.threshold)
        return fired, (synapse, membrane * (1 - fired.detach()))


tg.register_neuron(Synaptic, step=True, state="state", reset="it without a state")


class Speech(nn.Module):
    """Modelled on SpyTorch's networks of spoken digits: [B, T, F], weights [inputs, outputs] that the model owns.

    The input's current is computed for all steps at once, the recurrent one at each step; the read-out leaks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(9, 6) / 2)
        self.v1 = nn.Parameter(torch.randn(6, 6) / 2)
        self.w2 = nn.Parameter(torch.randn(6, 4) / 2)
        self.cell = Synaptic()

    def read_out(self, h2: Tensor) -> Tensor:
        flow, out, steps = torch.zeros_like(h2[:, 0]), torch.zeros_like(h2[:, 0]), []
        for t in range(h2.shape[1]):
            flow, out = 0.7 * flow + h2[:, t], 0.8 * out + flow
            steps.append(out)
        return torch.stack(steps, dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        h1 = torch.einsum("abc,cd->abd", (inputs, self.w1))
        out, state, record = torch.zeros_like(h1[:, 0]), None, []
        for t in range(inputs.shape[1]):
            out, state = self.cell(h1[:, t] + out @ self.v1, state)
            record.append(out)
        return self.read_out(torch.einsum("abc,cd->abd", (torch.stack(record, dim=1), self.w2)))

    def stepwise(self, tape: Tape, inputs: Tensor) -> Tensor:
        out, state, outputs = inputs.new_zeros(len(inputs), 6), None, []
        for frame in inputs.unbind(1):
            current = tape.weigh("w1", self.w1, torch.matmul, frame) + tape.weigh("v1", self.v1, torch.matmul, out)
            out, state = self.cell(current, state)
            tape.fired(self.cell, out[None], ["w1", "v1"])
            outputs.append(tape.weigh("w2", self.w2, torch.matmul, out))
        return self.read_out(torch.stack(outputs, dim=1))


class HandLoop(nn.Module):
    """A loop over time as people write it: a neuron that keeps its state, and a layer for its last spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.lif = nn.Linear(7, 6), nn.Linear(6, 6), Stateful()
        self.out, self.lif2, self.head = nn.Linear(6, 5, bias=False), Stateful(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        self.lif2.reset()
        s, outputs = torch.zeros(x.shape[1], 6, dtype=x.dtype), []
        for frame in x:
            s = self.lif(self.inp(frame) + self.rec(s))
            outputs.append(self.head(self.lif2(self.out(s))))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s, v, v2, outputs = x.new_zeros(x.shape[1], 6), 0.0, 0.0, []
        for frame in x:
            s, v = self.lif.step(v, tape.step(self.inp, frame) + tape.step(self.rec, s))
            tape.fired(self.lif, s[None], [self.inp, self.rec])
            s2, v2 = self.lif2.step(v2, tape.step(self.out, s))
            tape.fired(self.lif2, s2[None], [self.out])
            outputs.append(tape.step(self.head, s2))
        return torch.stack(outputs)


class StatePassed(nn.Module):
    """The same loop with a membrane that is passed, a list for the last spikes, and no term at the first step.

    The recurrent layer is called once less than its neuron: at the first step there is nothing to weigh.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.lif = nn.Linear(7, 6), nn.Linear(6, 6, bias=False), Passed()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, fired = None, []
        for t, frame in enumerate(x):
            current = self.inp(frame)
            if t:
                current = current + self.rec(fired[-1])
            s, v = self.lif(current, v)
            fired.append(s)
        return self.head(torch.stack(fired)).mean(0)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s, v, outputs = x.new_zeros(x.shape[1], 6), 0.0, []
        for frame in x:
            s, v = self.lif.step(v, tape.step(self.inp, frame) + tape.step(self.rec, s))
            tape.fired(self.lif, s[None], [self.inp, self.rec])
            outputs.append(tape.step(self.head, s))
        return torch.stack(outputs).mean(0)


class Lateral(nn.Module):
    """Modelled on convolutional recurrent networks: spikes of the last step through a convolution, zeros before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.lateral = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm, self.lif, self.fc = nn.BatchNorm2d(4), Stateful(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        s, outputs = torch.zeros(x.shape[1], 4, *x.shape[3:], dtype=x.dtype), []
        for frame in x:
            s = self.lif(self.norm(self.conv(frame)) + self.lateral(s))
            outputs.append(self.fc(s.mean((2, 3))))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s, v, outputs = x.new_zeros(x.shape[1], 4, *x.shape[3:]), 0.0, []
        for frame in x:
            s, v = self.lif.step(v, self.norm(tape.step(self.conv, frame)) + tape.step(self.lateral, s))
            tape.fired(self.lif, s[None], [self.conv, self.lateral])
            outputs.append(tape.step(self.fc, s.mean((2, 3))))
        return torch.stack(outputs)


class Feedback(nn.Module):
    """Spikes of the upper layer come back to the lower one at the next step; the two layers' neurons take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.lif1 = nn.Linear(7, 6), Stateful()
        self.up2, self.lif2 = nn.Linear(6, 5), Stateful()
        self.down, self.head = nn.Linear(5, 6), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif1.reset()
        self.lif2.reset()
        above, outputs = torch.zeros(x.shape[1], 5, dtype=x.dtype), []
        for frame in x:
            above = self.lif2(self.up2(self.lif1(self.up1(frame) + self.down(above))))
            outputs.append(self.head(above))
        return torch.stack(outputs).sum(0)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        above, v1, v2, outputs = x.new_zeros(x.shape[1], 5), 0.0, 0.0, []
        for frame in x:
            s, v1 = self.lif1.step(v1, tape.step(self.up1, frame) + tape.step(self.down, above))
            tape.fired(self.lif1, s[None], [self.up1, self.down])
            above, v2 = self.lif2.step(v2, tape.step(self.up2, s))
            tape.fired(self.lif2, above[None], [self.up2])
            outputs.append(tape.step(self.head, above))
        return torch.stack(outputs).sum(0)


class OneToOne(nn.Module):
    """Self-connections: one number per neuron, and one that all neurons of the second layer share."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lif = nn.Linear(7, 6), Stateful()
        self.own = nn.Parameter(torch.linspace(-0.6, 0.8, 6))
        self.mid, self.lif2 = nn.Linear(6, 5), Stateful()
        self.shared, self.head = nn.Parameter(torch.tensor(0.4)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        self.lif2.reset()
        s, s2 = (torch.zeros(x.shape[1], width, dtype=x.dtype) for width in (6, 5))
        outputs = []
        for frame in x:
            s = self.lif(self.inp(frame) + s * self.own)
            s2 = self.lif2(self.mid(s) + self.shared * s2)
            outputs.append(self.head(s2))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s, s2 = (x.new_zeros(x.shape[1], width) for width in (6, 5))
        v, v2, outputs = 0.0, 0.0, []
        for frame in x:
            current = tape.step(self.inp, frame) + tape.weigh("own", self.own, torch.mul, s)
            s, v = self.lif.step(v, current)
            tape.fired(self.lif, s[None], [self.inp, "own"])
            current = tape.step(self.mid, s) + tape.weigh("shared", self.shared, torch.mul, s2)
            s2, v2 = self.lif2.step(v2, current)
            tape.fired(self.lif2, s2[None], [self.mid, "shared"])
            outputs.append(tape.step(self.head, s2))
        return torch.stack(outputs)


class Delayed(nn.Module):
    """A neuron that takes all steps gives its spikes, one step late and zeros before, to the next synapse."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lif = nn.Linear(7, 6), TimeFirst()
        self.late, self.lif2, self.head = nn.Linear(6, 5), TimeFirst(), nn.Linear(5, 3)

    def late_spikes(self, s: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(s[:1]), s[:-1]])

    def forward(self, x: Tensor) -> Tensor:
        late = F.pad(self.lif(self.inp(x))[:-1], (0, 0, 0, 0, 1, 0))
        return self.head(self.lif2(self.late(late)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif, tape.synapse(self.inp, x), [self.inp])
        s = tape.neuron(self.lif2, tape.synapse(self.late, self.late_spikes(s)), [self.late])
        return tape.synapse(self.head, s)


_SPIKES = {"spiking_input": True}
ARCHITECTURES = {
    "speech": Architecture(
        Speech,
        spikes(EXAMPLES, STEPS, 9),
        (("w1", "cell"), ("v1", "cell")),
        {"w2": "reaches no"},
        _SPIKES,
        either={"w1": "step"},
    ),
    "hand-loop": Architecture(
        HandLoop,
        spikes(STEPS, EXAMPLES, 7),
        (("inp", "lif"), ("rec", "lif"), ("out", "lif2")),
        {"head": "reaches no"},
        _SPIKES,
    ),
    "no-term-at-first": Architecture(
        StatePassed,
        spikes(STEPS, EXAMPLES, 7),
        (("inp", "lif"), ("rec", "lif")),
        {"head": "reaches no"},
        _SPIKES,
        either={"rec": "step"},
    ),
    "lateral-convolution": Architecture(
        Lateral,
        spikes(STEPS, EXAMPLES, 2, 5, 5),
        (("conv", "lif"), ("lateral", "lif")),
        {"fc": "reaches no"},
        _SPIKES,
    ),
    "feedback": Architecture(
        Feedback,
        spikes(STEPS, EXAMPLES, 7),
        (("up1", "lif1"), ("down", "lif1"), ("up2", "lif2")),
        {"head": "reaches no"},
        _SPIKES,
    ),
    "one-to-one": Architecture(
        OneToOne,
        spikes(STEPS, EXAMPLES, 7),
        (("inp", "lif"), ("own", "lif"), ("mid", "lif2"), ("shared", "lif2")),
        {"head": "reaches no"},
        _SPIKES,
    ),
    "one-step-late": Architecture(
        Delayed,
        spikes(STEPS, EXAMPLES, 7),
        (("inp", "lif"), ("late", "lif2")),
        {"head": "reaches no"},
        _SPIKES,
    ),
}
