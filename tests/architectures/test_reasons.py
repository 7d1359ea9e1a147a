"""The reasons in the table are true, at every size, and say what can be done."""

import pytest
import torch
from architecture import reasons_of
from spiking import Fire, TimeFirst
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 3


class Queries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n1, self.w, self.n2 = nn.Linear(4, 4), tg.LIF(), nn.Linear(4, 4), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        s = self.n1(self.a(x))
        return self.n2(self.used(self.w(s), s))

    def used(self, current: Tensor, s: Tensor) -> Tensor:
        return current @ s.transpose(-1, -2)


class Halves(Queries):
    def used(self, current: Tensor, s: Tensor) -> Tensor:
        return current[:, :, ::2]


class Sorted(Queries):
    def used(self, current: Tensor, s: Tensor) -> Tensor:
        return current.sort(dim=-2).values


@pytest.mark.parametrize("network", [Queries, Halves, Sorted])
def test_reasons_do_not_depend_on_sizes(network: type[nn.Module]) -> None:
    """Where a current is lost on its way, the table says how, however many rows there are."""
    torch.manual_seed(0)
    reasons = [
        reasons_of(tg.attach(network(), torch.rand(3, 2, rows, 4), allow_empty=True))["w"] for rows in (2, 4, 8, 12)
    ]
    assert len(set(reasons)) == 1, reasons
    assert "reaches no" not in reasons[0]


class Spiker(nn.Module):
    """A spiking layer that is not registered."""

    def forward(self, x: Tensor) -> Tensor:
        return Fire.apply(x - 0.5)


class Behind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.block, self.fc1, self.lif = nn.Linear(6, 6), nn.Sequential(Spiker()), nn.Linear(6, 6), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.fc1(self.fired(self.fc0(x))))

    def fired(self, z: Tensor) -> Tensor:
        return self.block(z)


class Summed(Behind):
    """Its spikes at two inputs are added up."""

    def fired(self, z: Tensor) -> Tensor:
        return 0.5 * (self.block(z) + self.block(-z))


class Registered(Behind):
    """A registered neuron first, then one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = TimeFirst(), nn.Linear(6, 6)

    def fired(self, z: Tensor) -> Tensor:
        return self.block(self.fc(self.first(z)))


@pytest.mark.parametrize("network", [Behind, Summed, Registered])
def test_behind_a_spiking_layer_that_is_not_registered(network: type[nn.Module]) -> None:
    reason = reasons_of(tg.attach(network(), torch.rand(T, B, 6), allow_empty=True))["fc1"]
    assert "block.0" in reason
    assert "register_neuron" in reason
