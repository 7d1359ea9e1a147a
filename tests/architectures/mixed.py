"""Layers that take all steps beside neurons that take one, and neurons whose spikes have many heights."""

import torch
from architecture import EXAMPLES, STEPS, Architecture, spikes
from spiking import Dynamics, Fire, Passed, Stateful, TimeFirst, folded
from tape import Tape
from torch import Tensor, nn

import tracegrad as tg


class StepsThenAll(nn.Module):
    """A neuron called step by step; its stacked spikes pass layers, a norm and a neuron that take all steps at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lif = nn.Linear(7, 6), Stateful()
        self.fc, self.norm, self.lif1 = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), TimeFirst()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        s = torch.stack([self.lif(self.inp(frame)) for frame in x])
        return self.head(self.lif1(folded(self.norm, self.fc(s))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif, tape.synapse(self.inp, x), [self.inp])
        s = tape.neuron(self.lif1, folded(self.norm, tape.synapse(self.fc, s)), [self.fc])
        return tape.synapse(self.head, s)


class AllThenSteps(nn.Module):
    """A neuron that takes all steps; the next layer and neuron take one after another, and give them back together."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lif = nn.Linear(7, 6), TimeFirst()
        self.fc, self.lif1 = nn.Linear(6, 5), Passed()
        self.fc2, self.lif2, self.head = nn.Linear(5, 4), TimeFirst(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        v, fired = None, []
        for s in self.lif(self.inp(x)):
            s, v = self.lif1(self.fc(s), v)
            fired.append(s)
        return self.head(self.lif2(self.fc2(torch.stack(fired))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif, tape.synapse(self.inp, x), [self.inp])
        s = tape.neuron(self.lif1, tape.synapse(self.fc, s), [self.fc])
        s = tape.neuron(self.lif2, tape.synapse(self.fc2, s), [self.fc2])
        return tape.synapse(self.head, s)


class CurrentOfAllSteps(nn.Module):
    """A layer and its norm take all steps at once; their current reaches a neuron one step after another."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lif = nn.Linear(7, 6), TimeFirst()
        self.fc, self.norm, self.lif1 = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), Stateful()
        self.fc2, self.lif2, self.head = nn.Linear(5, 4), Stateful(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif1.reset()
        self.lif2.reset()
        current, outputs = folded(self.norm, self.fc(self.lif(self.inp(x)))), []
        for z in current:
            outputs.append(self.head(self.lif2(self.fc2(self.lif1(z)))))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif, tape.synapse(self.inp, x), [self.inp])
        s = tape.neuron(self.lif1, folded(self.norm, tape.synapse(self.fc, s)), [self.fc])
        s = tape.neuron(self.lif2, tape.synapse(self.fc2, s), [self.fc2])
        return tape.synapse(self.head, s)


class Bursting(Dynamics):
    """Graded spikes: a spike carries the membrane that fired it."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        u = self.leak * v + current
        fires = Fire.apply(u - self.threshold)
        return fires * u, u * (1 - fires)

    def forward(self, currents: Tensor) -> Tensor:
        return self.over_time(currents)


class Ternary(Dynamics):
    """Signed spikes: -1, 0, 1."""

    def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        u = self.leak * v + current
        spikes = Fire.apply(u - self.threshold) - Fire.apply(-u - self.threshold)
        return spikes, u * (1 - spikes.abs())

    def forward(self, currents: Tensor) -> Tensor:
        return self.over_time(currents)


class GradedSteps(Bursting):
    """Graded spikes, one step a call."""

    def forward(self, current: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.step(0.0 if v is None else v, current)


tg.register_neuron(Bursting, graded=True)
tg.register_neuron(Ternary, graded=True)
tg.register_neuron(GradedSteps, step=True, state="v", reset="it without a membrane", graded=True)


class Graded(nn.Module):
    """Two layers of neurons whose spikes have many heights, or signs."""

    def __init__(self, neuron: type[Dynamics]) -> None:
        super().__init__()
        self.fc0, self.lif0 = nn.Linear(7, 6), neuron()
        self.fc1, self.lif1 = nn.Linear(6, 5), neuron()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lif1(self.fc1(self.lif0(self.fc0(x)))))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, tape.synapse(self.fc0, x), [self.fc0])
        s = tape.neuron(self.lif1, tape.synapse(self.fc1, s), [self.fc1])
        return tape.synapse(self.head, s)


class GradedLoop(Graded):
    """The same, step by step."""

    def __init__(self) -> None:
        super().__init__(GradedSteps)

    def forward(self, x: Tensor) -> Tensor:
        v0, v1, outputs = None, None, []
        for frame in x:
            s, v0 = self.lif0(self.fc0(frame), v0)
            s, v1 = self.lif1(self.fc1(s), v1)
            outputs.append(self.head(s))
        return torch.stack(outputs)


_SPIKES = {"spiking_input": True}
_GRADED = (("fc0", "lif0"), ("fc1", "lif1"))
_HEAD = {"head": "reaches no"}
ARCHITECTURES = {
    "steps-then-all": Architecture(
        StepsThenAll, spikes(STEPS, EXAMPLES, 7), (("inp", "lif"), ("fc", "lif1")), _HEAD, _SPIKES
    ),
    "all-then-steps": Architecture(
        AllThenSteps, spikes(STEPS, EXAMPLES, 7), (("inp", "lif"), ("fc", "lif1"), ("fc2", "lif2")), _HEAD, _SPIKES
    ),
    "current-of-all-steps": Architecture(
        CurrentOfAllSteps,
        spikes(STEPS, EXAMPLES, 7),
        (("inp", "lif"), ("fc", "lif1"), ("fc2", "lif2")),
        _HEAD,
        _SPIKES,
        either={"fc": "step"},
    ),
    "graded": Architecture(lambda: Graded(Bursting), spikes(STEPS, EXAMPLES, 7), _GRADED, _HEAD, _SPIKES),
    "signed": Architecture(lambda: Graded(Ternary), spikes(STEPS, EXAMPLES, 7), _GRADED, _HEAD, _SPIKES),
    "graded-steps": Architecture(GradedLoop, spikes(STEPS, EXAMPLES, 7), _GRADED, _HEAD, _SPIKES),
}
