"""The table of an attachment: every synapse once, under its name, and whether it trains."""

import re
from collections.abc import Callable

import norse.torch as norse
import pytest
import snntorch
import torch
import torch.nn.functional as F
from architecture import assert_equal_gradients, gradients, pairs_of, reasons_of, row_of
from spiking import Stateful, TimeFirst
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import tracegrad as tg

T, B = 4, 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


# Weights that are no `.weight` parameter


class Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.input_weights = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.input_weights


class Experts(nn.Module):
    """Weights in a list that the model owns."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(6, 6) for _ in range(2))
        self.lif0, self.lif1 = tg.LIF(), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif1(F.linear(self.lif0(F.linear(x, self.weights[0])), self.weights[1]))


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = weight_norm(nn.Conv3d(1, 2, 3, padding=1)), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = norse.LIFRecurrentCell(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for frame in x:
            s, state = self.cell(frame, state)
            outputs.append(s)
        return torch.stack(outputs)


OWN_WEIGHTS = {
    "dense": (
        lambda: nn.Sequential(Dense(6, 6), tg.LIF(), Dense(6, 5), tg.LIF()),
        spikes(T, B, 6),
        {"0.input_weights", "2.input_weights"},
    ),
    "list": (Experts, spikes(T, B, 6), {"weights.0", "weights.1"}),
    "weight-normed volume": (Volumes, spikes(T, B, 1, 4, 4, 4), {"conv"}),
    "norse": (Cell, spikes(T, B, 6), {"cell.input_weights", "cell.recurrent_weights"}),
}


@pytest.mark.parametrize(("build", "x", "names"), OWN_WEIGHTS.values(), ids=OWN_WEIGHTS)
def test_every_weight_is_in_the_table_under_its_name(build: Callable[[], nn.Module], x: Tensor, names: set) -> None:
    for declared in ({"spiking_input": True}, {}):
        attachment = tg.attach(build(), x, allow_empty=True, **declared)
        listed = {name for name, _ in pairs_of(attachment)} | reasons_of(attachment).keys()
        assert listed == names, str(attachment)
        assert all(name in str(attachment) for name in names)


@pytest.mark.parametrize(("build", "x", "names"), OWN_WEIGHTS.values(), ids=OWN_WEIGHTS)
def test_strict_counts_them(build: Callable[[], nn.Module], x: Tensor, names: set) -> None:
    """Without `spiking_input` the first of them is left out."""
    with pytest.raises(ValueError, match="strict|data"):
        tg.attach(build(), x, strict=True)


# One row for each synapse


def header(attachment: tg.Attachment) -> tuple[int, int]:
    scaled, of = re.search(r"(\d+) of (\d+) synapses", str(attachment)).groups()
    return int(scaled), int(of)


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5), snntorch.RLeaky(beta=0.8, linear_features=5)

    def forward(self, x: Tensor) -> Tensor:
        (s, v), outputs = self.lif.reset_mem(), []
        for frame in x:
            s, v = self.lif(self.fc(frame), s, v)
            outputs.append(s)
        return torch.stack(outputs)


class Shared(nn.Module):
    """One layer that gets the data at first and spikes after that, and one that gets the data at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif0, self.lif1, self.head = nn.Linear(6, 6), tg.LIF(), tg.LIF(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif1(self.fc(self.lif0(self.fc(x))))
        return torch.stack([self.head(step) for step in s])


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.lif0, self.fc1, self.lif1 = nn.Linear(6, 6), Stateful(), nn.Linear(6, 6), Stateful()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.lif0.reset()
        self.lif1.reset()
        return torch.stack([self.head(self.lif1(self.fc1(self.lif0(self.fc0(frame))))) for frame in x])


@pytest.mark.parametrize(
    ("network", "declared", "counts"),
    [
        (Leaky, True, (2, 2)),
        (Leaky, False, (1, 2)),
        (Shared, False, (1, 2)),
        (Steps, False, (1, 3)),
        (Steps, True, (2, 3)),
    ],
)
def test_the_table_counts_synapses(network: type[nn.Module], declared: bool, counts: tuple[int, int]) -> None:
    attachment = tg.attach(network(), spikes(T, B, 6), spiking_input=declared)
    assert header(attachment) == counts, str(attachment)
    rows = [line.split()[0] for line in str(attachment).splitlines()[2:] if line.strip()]
    names = {name for name, _ in pairs_of(attachment)} | reasons_of(attachment).keys()
    assert names <= {row.removesuffix(".weight") for row in rows}


# Frozen weights


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Linear(6, 6).requires_grad_(False), TimeFirst()
        self.b, self.n1 = nn.Linear(6, 6), TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        return self.n1(self.b(self.n0(self.a(x))))


def test_a_frozen_weight_is_listed_as_frozen_until_it_trains() -> None:
    """Adapters beside a frozen layer: weights_in_use.py."""
    torch.manual_seed(0)
    model, x = Frozen().double(), spikes(T, B, 6).double()
    attachment = tg.attach(model, x, spiking_input=True, alpha=0.9)
    assert ("b", "n1") in attachment.pairs
    assert "frozen" in row_of(attachment, "a")
    assert header(attachment)[0] == 1
    gradients(model, (x,))
    assert model.a.weight.grad is None
    model.a.requires_grad_(True)
    thawed, _ = gradients(model, (x,))
    again = Frozen().double()
    again.load_state_dict(model.state_dict())
    again.requires_grad_(True)
    assert tg.attach(again, x, spiking_input=True, alpha=0.9).pairs == [("a", "n0"), ("b", "n1")]
    assert_equal_gradients(thawed, gradients(again, (x,))[0], 1e-12)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_layer_half_of_which_is_frozen(part: str) -> None:
    model = Frozen()
    model.a.requires_grad_(True)
    getattr(model.a, part).requires_grad_(False)
    attachment = tg.attach(model, spikes(T, B, 6), spiking_input=True)
    assert ("frozen" in row_of(attachment, "a")) == (part == "weight")
    assert header(attachment)[0] == (1 if part == "weight" else 2)
