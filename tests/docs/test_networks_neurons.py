"""`docs/attach/networks.md`, "Your neurons": each row by an example."""

import re
from pathlib import Path

import pytest
import torch
from spiking import (
    BatchFirst,
    Dynamics,
    Fire,
    FoldedBatchFirst,
    FoldedTimeFirst,
    Stateful,
    TimeFirst,
    TimeLast,
)
from spikingjelly.activation_based import neuron as jelly
from torch import Tensor, nn

import tracegrad as tg
from small_networks import B, Between, N, T, assert_listed, assert_scaled, gradients, spikes
from table_rows import ROOT, Rows

ROWS = Rows("docs/attach/networks.md", "Your neurons")
PAIRS = (("first", "neuron0"), ("second", "neuron1"))
CHAIN = (("0", "1"), ("2", "3"))


def chain(neuron: type[nn.Module], *options: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(N, N), neuron(*options), nn.Linear(N, N), neuron(*options))


@ROWS.row("takes all steps in one call", "yes")
def all_steps() -> None:
    assert_scaled(chain(TimeFirst), spikes(), *CHAIN)


@ROWS.row("takes `[B, T, ...]`", "option")
def time_second_or_last() -> None:
    assert_scaled(chain(BatchFirst), spikes(B, T, N), *CHAIN)

    class Last(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.neuron1(self.second(self.neuron0(self.first(x).movedim(0, -1)).movedim(-1, 0)).movedim(0, -1))

    model = Last(neuron=TimeLast())
    model.neuron0 = TimeLast()
    assert_scaled(model, spikes(), *PAIRS)


@ROWS.row("takes time folded into the batch", "option")
def time_folded() -> None:
    for kind in (FoldedTimeFirst, FoldedBatchFirst):
        assert_scaled(chain(kind, T), spikes(T * B, N), *CHAIN)


class Steps(Between):
    """A loop over time."""

    def __init__(self, neuron: type[nn.Module] = Stateful) -> None:
        super().__init__()
        self.neuron0, self.neuron1 = neuron(), neuron()

    def forward(self, x: Tensor) -> Tensor:
        self.neuron0.reset()
        self.neuron1.reset()
        return torch.stack([self.neuron1(self.second(self.neuron0(self.first(frame)))) for frame in x])


@ROWS.row("takes one step a call", "option")
def one_step() -> None:
    assert_scaled(Steps(), spikes(), *PAIRS)


@ROWS.row("returns a tuple", "yes")
def tuple_or_keyword() -> None:
    @tg.register_neuron
    class WithRate(TimeFirst):
        def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
            fired = super().forward(currents)
            return fired, fired.mean()

    class Net(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.neuron1(currents=self.second(self.neuron0(currents=self.first(x))[0]))[0]

    model = Net(neuron=WithRate())
    model.neuron0 = WithRate()
    assert_scaled(model, spikes(), *PAIRS)


@ROWS.row("is parallel over time (PSN)", "yes")
def parallel_stochastic_memoryless() -> None:
    @tg.register_neuron
    class Stochastic(TimeFirst):
        def forward(self, currents: Tensor) -> Tensor:
            return super().forward(currents + 0.1 * torch.randn_like(currents))

    @tg.register_neuron
    class Memoryless(TimeFirst):
        leak = 0.0

    assert_scaled(chain(jelly.PSN, T), spikes(), *CHAIN)
    for kind in (Stochastic, Memoryless):
        assert_scaled(chain(kind), spikes(), *CHAIN)


@ROWS.row("trains its leak, threshold or rest", "yes")
def trained_values() -> None:
    def trained() -> nn.Module:
        values = {name: nn.Parameter(torch.tensor(value)) for name, value in (("leak", 0.9), ("threshold", 0.5))}
        return tg.LIF(reset="hard", rest=nn.Parameter(torch.tensor(0.1)), surrogate="triangle", **values)

    model = nn.Sequential(nn.Linear(N, N), trained(), nn.Linear(N, N), trained())
    assert_scaled(model, spikes(), *CHAIN)
    found = gradients(model, spikes())
    for name in ("leak", "threshold", "rest"):
        assert found[f"1.{name}"].abs().sum() > 0, f"{name} does not train"

    @tg.register_neuron
    class Own(TimeFirst):
        leak = property(lambda self: self.decay.sigmoid())

        def __init__(self) -> None:
            super().__init__()
            self.decay = nn.Parameter(torch.full((N,), 0.6))

    assert_scaled(chain(Own), spikes(), *CHAIN)


@ROWS.row("fires spikes of several heights", "option")
def graded() -> None:
    class Ternary(Dynamics):
        def step(self, v: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
            u = self.leak * v + current
            fired = Fire.apply(u - self.threshold) - Fire.apply(-u - self.threshold)
            return fired, u * (1 - fired.abs())

        def forward(self, currents: Tensor) -> Tensor:
            return self.over_time(currents)

    tg.register_neuron(Ternary)
    with pytest.raises(ValueError, match="spikes are 0 or of one positive height: .*graded=True"):
        tg.attach(chain(Ternary), spikes().float(), spiking_input=True)
    tg.register_neuron(Ternary, graded=True)
    assert_scaled(chain(Ternary), spikes(), *CHAIN)


@ROWS.row("is one module with its layer", "yes")
def fused() -> None:
    """As `docs/attach/rewrite.md` shows, to the same gradients as of two modules."""

    @tg.register_neuron
    class SpikingLinear(TimeFirst):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(N, N)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.linear(x))

    model = nn.Sequential(SpikingLinear(), SpikingLinear())
    assert_scaled(model, spikes(), ("0.linear", "0"), ("1.linear", "1"))
    apart = chain(TimeFirst).double()
    names = {"0.linear": "0", "1.linear": "2"}
    state = {f"{names[name[:8]]}{name[8:]}": weight for name, weight in model.state_dict().items()}
    apart.load_state_dict(state)
    tg.attach(apart, spikes(), spiking_input=True, alpha=0.9)
    expected = gradients(apart, spikes()).values()
    for ours, theirs in zip(gradients(model, spikes()).values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Functional(nn.Module):
    """Two layers whose spikes are a function's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x: Tensor) -> Tensor:
        u = v = 0.0
        outputs = []
        for frame in x:
            u = 0.5 * u + self.a(frame)
            v = 0.5 * v + self.b(Fire.apply(u - 0.5))
            outputs.append(Fire.apply(v - 0.5))
        return torch.stack(outputs)


@ROWS.row("is a function, not a module", "listed")
def function() -> None:
    assert_listed(nn.Sequential(nn.Linear(N, N), TimeFirst(), Functional()), spikes(), "2.b", "has passed Fire")
    with pytest.raises(ValueError, match="the model holds no neuron that is known"):
        tg.attach(Functional(), spikes().float(), spiking_input=True)


@ROWS.row("goes backward at every step by itself", "listed")
def online() -> None:
    class Online(Between):
        def forward(self, x: Tensor) -> Tensor:
            currents = []
            for frame in self.neuron0(self.first(x)):
                output = self.online(self.second(frame))
                currents.append(self.third(output[0] if isinstance(output, list | tuple) else output))
            return self.neuron1(torch.stack(currents))

    for kind in (jelly.OTTTLIFNode, jelly.SLTTLIFNode):
        model = Online()
        model.online, model.third = kind(), nn.Linear(N, N)
        attachment = assert_listed(model, spikes(), "third", "goes backward at every step by itself")
        assert attachment.pairs == [("first", "neuron0")]


@ROWS.row("does something else than was declared", "error")
def declared_wrongly() -> None:
    class BatchSecond(BatchFirst):
        pass

    tg.register_neuron(BatchSecond)
    with pytest.raises(ValueError, match=r"declare tg\.register_neuron\(BatchSecond, time_dim=1\)"):
        tg.attach(chain(BatchSecond), spikes(B, T, N).float(), spiking_input=True)


@pytest.mark.parametrize("row", ROWS.claims)
def test_your_neurons(row: str) -> None:
    ROWS.run(row)


def test_examples_are_asked_for_every_table() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/attach/networks.md").read_text(encoding="utf-8"), re.MULTILINE)
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_networks_*.py"))
    calls = re.findall(r"^ROWS = Rows\(([^)]*)\)", tests, re.MULTILINE)
    asked = {heading for call in calls for heading in re.findall(r'"([^"]*)"', call)[1:]}
    assert asked == {*headings} - {"What is not supported"}
