"""`docs/attach/networks.md`, "Your synapses": each row by an example."""

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from spiking import Stateful, TimeFirst
from spikingjelly.activation_based import functional, layer
from spikingjelly.activation_based import neuron as jelly
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

import tracegrad as tg
from small_networks import B, Between, N, T, assert_listed, assert_scaled, differ, gradients, lively, spikes
from table_rows import Rows

ROWS = Rows("docs/attach/networks.md", "Your synapses")
PAIRS = (("first", "neuron0"), ("second", "neuron1"))


def folded(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@ROWS.row("`nn.Linear`, `nn.Conv1d`", "yes")
def layers() -> None:
    class Frames(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.synapse, self.neuron = layer, TimeFirst()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(folded(self.synapse, x))

    for dims in (1, 2, 3):
        convolution, transposed = (getattr(nn, f"{kind}{dims}d") for kind in ("Conv", "ConvTranspose"))
        for options in ({"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}):
            for kind in (convolution, transposed):
                assert_scaled(Frames(kind(2, 4, 2, **options)), spikes(T, B, 2, *[5] * dims), ("synapse", "neuron"))
        circular = convolution(2, 4, 3, padding=1, padding_mode="circular")
        assert_scaled(Frames(circular), spikes(T, B, 2, *[5] * dims), ("synapse", "neuron"))


class Own(nn.Linear):
    def __init__(self, weigh) -> None:
        super().__init__(N, N)
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        return self.weigh(x, self.weight)


@ROWS.row("a module with a forward of its own", "yes")
def own_forward() -> None:
    for weigh in (
        lambda x, w: F.linear(x, w),
        lambda x, w: x @ w.t(),
        lambda x, w: torch.einsum("tbi,oi->tbo", x, w),
        lambda x, w: F.conv2d(x.reshape(T * B, N, 1, 1), w[..., None, None]).reshape(T, B, N),
    ):
        assert_scaled(Between(synapse=Own(weigh)), spikes(), *PAIRS)


@ROWS.row("a parameter of the model", "yes")
def parameter() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.neuron = nn.Parameter(torch.rand(N, N)), TimeFirst()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(x @ self.w)

    assert_scaled(Net(), spikes(), ("w", "neuron"))


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(torch.rand(2, N)), nn.Parameter(torch.rand(N, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.B @ self.A


@ROWS.row("a weight made of parameters", "yes")
def made_weights() -> None:
    standardised = Own(lambda x, w: F.linear(x, (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)))
    adapted = nn.Linear(N, N)
    register_parametrization(adapted, "weight", LowRank())
    for synapse in (standardised, weight_norm(nn.Linear(N, N)), adapted):
        assert_scaled(Between(synapse=synapse), spikes(), *PAIRS)


@ROWS.row("low-rank layers beside a frozen one", "listed")
def adapters() -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.A, self.B = nn.Linear(N, N).requires_grad_(False), nn.Linear(N, 2), nn.Linear(2, N)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.B(self.A(x))

    attachment = assert_listed(Between(synapse=Adapted()), spikes(), "second.A", "goes into second.B")
    assert attachment.pairs == [("first", "neuron0"), ("second.base", "neuron1")]
    assert "second.base  6x6     neuron1 (frozen: not scaled)" in str(attachment)
    assert "current of second.A" in dict(attachment.skipped)["second.B"]


@ROWS.row("a weight that two layers share", "yes")
def shared() -> None:
    tied = Between()
    tied.second.weight = tied.first.weight
    plain = gradients(lively(tied), spikes())
    assert tg.attach(tied, spikes(), spiking_input=True, alpha=0.9).pairs == list(PAIRS)
    assert differ(gradients(tied, spikes()), plain) == {"first.weight"}
    twice = Between()
    twice.second = twice.first
    assert_scaled(twice, spikes(), ("first", "neuron0"), ("first", "neuron1"))


@ROWS.row("a frozen layer", "yes")
def frozen() -> None:
    model = Between()
    model.second.requires_grad_(False)
    attachment = assert_scaled(model, spikes(), *PAIRS, frozen="second")
    assert "neuron1 (frozen: not scaled)" in str(attachment)


@ROWS.row("called once for all steps", "yes")
def calls() -> None:
    class StepsOfLayer(Between):
        def forward(self, x: Tensor) -> Tensor:
            current = torch.stack([self.second(frame) for frame in self.neuron0(self.first(x))])
            return self.neuron1(current)

    class StepsOfNeuron(Between):
        def forward(self, x: Tensor) -> Tensor:
            self.neuron1.reset()
            return torch.stack([self.neuron1(z) for z in self.second(self.neuron0(self.first(x)))])

    assert_scaled(StepsOfLayer(), spikes(), *PAIRS)
    assert_scaled(StepsOfNeuron(neuron=Stateful()), spikes(), *PAIRS)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.lif = nn.Linear(N, N), nn.Linear(N, N), Stateful()
        self.own = nn.Parameter(torch.linspace(-0.5, 0.9, N))

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        s, outputs = torch.zeros_like(x[0]), []
        for frame in x:
            s = self.lif(self.inp(frame) + self.rec(s) + self.own * s)
            outputs.append(s)
        return torch.stack(outputs)


@ROWS.row("recurrent, on the spikes of the step before", "yes")
def recurrent() -> None:
    assert_scaled(Recurrent(), spikes(), ("own", "lif"), ("inp", "lif"), ("rec", "lif"))


class Cells(nn.Module):
    """A recurrent neuron of a library that gets one step a call."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        states = list(self.cell.reset_mem()) if isinstance(self.cell, snntorch.RLeaky) else [None]
        outputs = []
        for frame in x:
            s, *states = self.cell(frame, *states)
            outputs.append(s)
            states = [s, *states] if isinstance(self.cell, snntorch.RLeaky) else states
        return torch.stack(outputs)


@ROWS.row("recurrent within a neuron", "yes")
def recurrent_neurons() -> None:
    x, events = spikes().float(), {"spiking_input": True}
    leaky = Cells(snntorch.RLeaky(beta=0.8, linear_features=N))
    assert tg.attach(leaky, x, **events).pairs == [("cell.recurrent", "cell")]
    cell = Cells(norse.LIFRecurrentCell(N, N))
    own = [(f"cell.{which}_weights", "cell") for which in ("input", "recurrent")]
    assert tg.attach(cell, x, **events).pairs == own
    container = layer.LinearRecurrentContainer(jelly.LIFNode(), N, N, step_mode="m")
    functional.set_step_mode(container, "m")
    assert tg.attach(container, x, **events).pairs == [("rc", "sub_module")]


@ROWS.row("recurrent, called after its neuron", "listed")
def recurrent_afterwards() -> None:
    class After(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            self.lif.reset()
            back, outputs = torch.zeros_like(x[0]), []
            for frame in x:
                outputs.append(self.lif(self.inp(frame) + back))
                back = self.rec(outputs[-1])
            return torch.stack(outputs)

    class FromTheSecondStep(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            self.lif.reset()
            outputs = [self.lif(self.inp(x[0]))]
            for frame in x[1:]:
                outputs.append(self.lif(self.inp(frame) + self.rec(outputs[-1])))
            return torch.stack(outputs)

    assert_listed(After(), spikes(), "rec", "in the same way at every step")
    assert_listed(FromTheSecondStep(), spikes(), "rec", "it is called 3 times, but its neuron lif 4 times")
    layers = nn.Sequential(nn.Linear(N, N), sl.LIFRecurrent(2.0, rec_connect=nn.Linear(N, N), norm_input=False))
    attachment = tg.attach(layers, 9 * spikes(B, T, N).float(), spiking_input=True)  # so that they fire
    assert attachment.pairs == [("0", "1")]
    assert "no pre-synaptic spikes" in dict(attachment.skipped)["1.rec_connect"]


@ROWS.row("a convolution or linear layer along time", "listed")
def along_time() -> None:
    class Delays(Between):
        def forward(self, x: Tensor) -> Tensor:
            late = F.pad(self.neuron0(self.first(x)).permute(1, 2, 0), (2, 0))
            return self.neuron1(self.second(late).permute(2, 0, 1))

    class Mixed(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.neuron1(self.second(self.neuron0(self.first(x)).movedim(0, -1)).movedim(-1, 0))

    reason = "time is a dimension that it acts along, so its steps are not apart"
    assert_listed(Delays(synapse=nn.Conv1d(N, N, 3)), spikes(), "second", reason)
    assert_listed(Mixed(synapse=nn.Linear(T, T)), spikes(), "second", reason)


class Held(nn.Module):
    """A module of PyTorch's that holds its weights itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.module, nn.Embedding):
            return x + self.module(torch.zeros(x.shape[:2], dtype=torch.long))
        arguments = {nn.Bilinear: 2, nn.MultiheadAttention: 3}.get(type(self.module), 1)
        output = self.module(*[x] * arguments)
        return output[0] if isinstance(output, tuple) else output


@ROWS.row("`nn.Bilinear`, `nn.Embedding`", "listed")
def held() -> None:
    for module in (nn.Bilinear(N, N, N), nn.Embedding(1, N), nn.RNN(N, N), nn.LSTM(N, N), nn.GRU(N, N)):
        name = "second.module"
        if isinstance(module, nn.Embedding):
            module.weight.data = module.weight.data.repeat(2, 1)
        assert_listed(Between(synapse=Held(module)), spikes(), name, f"{type(module).__name__} is not supported")
    attention = assert_listed(
        Between(synapse=Held(nn.MultiheadAttention(N, 2))),
        spikes(),
        "second.module.in_proj_weight",
        "MultiheadAttention is not supported",
    )
    assert attention.pairs == [("first", "neuron0")]


@pytest.mark.parametrize("row", ROWS.claims)
def test_your_synapses(row: str) -> None:
    ROWS.run(row)
