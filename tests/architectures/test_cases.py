"""Networks from reports, each with two more of its kind: what attach leaves behind, odd layers, odd synapses."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from architecture import pairs_of, reasons_of
from spiking import Stateful, TimeFirst
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import tracegrad as tg
from reference import assert_differ, assert_near, loss_of

T, B = 4, 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


# What attach leaves behind: nothing


class Twice(nn.Module):
    """Modelled on TET's ResNet: a norm that is registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), tg.LIF()
        self.fc, self.both = nn.Linear(16, 3), nn.Sequential(self.conv, self.bn)

    def forward(self, x: Tensor) -> Tensor:
        z = self.both(x)
        return self.fc(self.lif(z.expand(3, *z.shape)).flatten(2))


class Tied(nn.Module):
    """One norm in a list, as an attribute and within a block; two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.norms = nn.ModuleList([self.norm, nn.BatchNorm1d(6)])
        self.a, self.b, self.lif0, self.lif1 = nn.Linear(6, 6), nn.Linear(6, 6), tg.LIF(), tg.LIF()
        self.b.weight = self.a.weight
        self.block = nn.Sequential(self.a, nn.Flatten(0, 1), self.norm)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif0(self.block(x).unflatten(0, x.shape[:2]))
        return self.lif1(self.norms[1](self.b(s).flatten(0, 1)).unflatten(0, x.shape[:2]))


class Normed(nn.Module):
    """Buffers that every forward pass in training changes in place (spectral norm), and random numbers (dropout)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.lif0 = spectral_norm(nn.Linear(6, 6)), tg.LIF()
        self.dropout, self.b, self.lif1 = nn.Dropout(0.3), spectral_norm(nn.Linear(6, 6)), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif1(self.b(self.dropout(self.lif0(self.a(x)))))


@pytest.mark.parametrize(
    ("network", "x"), [(Twice, spikes(2, 2, 4, 4)), (Tied, spikes(T, B, 6)), (Normed, spikes(T, B, 6))]
)
def test_attach_leaves_buffers_and_random_numbers_as_they_are(network: type[nn.Module], x: Tensor) -> None:
    model = network()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    tg.attach(model, x, allow_empty=True)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} has changed"


# One odd layer


class FoldedOnce(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.ns = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), nn.ModuleList(tg.LIF() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for i, (f, n) in enumerate(zip(self.f, self.ns, strict=True)):
            z = f(x)
            x = n(z.flatten(0, 1)).unflatten(0, x.shape[:2]) if i == 2 else n(z)
        return x


def test_a_neuron_that_takes_examples_for_steps_leaves_the_rest_paired() -> None:
    """Others of the kind: changing_time.py."""
    attachment = tg.attach(FoldedOnce(), torch.rand(4, 2, 6))
    assert ("f.1", "ns.1") in attachment.pairs
    assert {"f.0", "f.2"} <= reasons_of(attachment).keys()


class Delays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.n0, self.conv, self.n1 = nn.Linear(6, 8), tg.LIF(), nn.Conv1d(8, 8, 5), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.n1(self.conv(F.pad(self.n0(self.fc(x)).permute(1, 2, 0), (4, 0))).permute(2, 0, 1))


def test_a_convolution_over_time_is_listed_with_its_true_reason() -> None:
    """Others of the kind: changing_time.py."""
    attachment = tg.attach(Delays(), torch.rand(10, 3, 6), allow_empty=True)
    assert attachment.pairs == []
    reason = reasons_of(attachment)["conv"]
    assert "time" in reason
    assert "folds" not in reason


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_events_that_the_model_transposes_itself(order: tuple[int, ...]) -> None:
    """[B, T, F], [B, F, T], [F, T, B]: pairs, and gradients as of the events in order. See time_orders.py, too."""

    def gradient(first: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(first, nn.Linear(6, 8), TimeFirst(), nn.Linear(8, 5), TimeFirst()).double()
        found = []
        for scaled in (False, True):
            attachment = tg.attach(model, x, alpha=0.9, spiking_input=True) if scaled else None
            model.zero_grad()
            loss_of(model(x)).backward()
            found.append(model[1].weight.grad.clone())
        assert attachment.pairs == [("1", "2"), ("3", "4")]
        return found[1], found[0]

    class Permute(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(order)

    x = spikes(T, B, 6).double()
    expected, plain = gradient(nn.Identity(), x)
    ours, _ = gradient(Permute(), x.permute(*(order.index(dim) for dim in range(3))))
    assert_near(ours, expected, 1e-12, "the weight")
    assert_differ({"weight": expected}, {"weight": plain})


# Odd synapses


class Recurrent(nn.Module):
    def __init__(self, fires: Callable[[], nn.Module], width: int) -> None:
        super().__init__()
        self.inp, self.rec, self.lif = nn.Linear(6, width), nn.Linear(width, width), fires()

    def forward(self, x: Tensor) -> Tensor:
        self.reset()
        s, o = torch.zeros(x.shape[1], self.rec.in_features), []
        for f in x:
            s = self.lif(self.inp(f) + self.rec(s))
            o.append(s)
        return torch.stack(o)

    def reset(self) -> None:
        if isinstance(self.lif, Stateful):
            self.lif.reset()
        else:
            functional.reset_net(self.lif)


@pytest.mark.parametrize("fires", [neuron.LIFNode, neuron.IFNode, Stateful])
def test_recurrent_synapses(fires: Callable[[], nn.Module]) -> None:
    """Gradients of these and of others of the kind: recurrent.py, recurrent_libraries.py."""
    attachment = tg.attach(Recurrent(fires, 8), spikes(5, 2, 6), spiking_input=True, strict=True)
    assert pairs_of(attachment) == [("inp", "lif"), ("rec", "lif")]


ENCODERS = {
    "drawn": lambda x: (torch.rand(4, *x.shape) < x).float(),
    "bernoulli": lambda x: torch.bernoulli(x.detach().clamp(0, 1).expand(4, *x.shape)),
    "thresholds": lambda x: torch.stack([(x > level).float() for level in (0.2, 0.4, 0.6, 0.8)]),
}


class Encoded(nn.Sequential):
    def __init__(self, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__(nn.Linear(6, 8), tg.LIF(), nn.Linear(8, 5), tg.LIF())
        self.encode = encode

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.encode(x))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_encoders_inside_the_model(encode: Callable[[Tensor], Tensor]) -> None:
    """Gradients: encoders.py."""
    declared = tg.attach(Encoded(encode), torch.rand(3, 6), spiking_input=True)
    assert pairs_of(declared) == [("0", "1"), ("2", "3")]
    undeclared = tg.attach(Encoded(encode), torch.rand(3, 6))
    assert pairs_of(undeclared) == [("2", "3")]
    assert "spiking_input=True" in reasons_of(undeclared)["0"]


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        frames = F.conv2d(x.flatten(0, 1), self.weight, self.bias, self.stride, self.padding)
        return frames.unflatten(0, x.shape[:2])


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t() + self.bias


class Kernel(nn.Module):
    """A layer of no class of PyTorch's, with a weight called `weight`, [outputs, inputs, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x.flatten(0, 1), self.weight, padding=1).unflatten(0, x.shape[:2])


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (lambda: OwnConv(2, 2, 3, padding=1), spikes(T, B, 2, 5, 5)),
        (lambda: OwnLinear(6, 6), spikes(T, B, 6)),
        (Kernel, spikes(T, B, 6, 5)),
    ],
    ids=["conv", "linear", "kernel"],
)
def test_layers_with_a_forward_pass_of_their_own(layer: Callable[[], nn.Module], x: Tensor) -> None:
    """Gradients: shortcuts.py, weights_in_use.py."""
    model = nn.Sequential(layer(), tg.LIF(), layer(), tg.LIF())
    attachment = tg.attach(model, x, spiking_input=True, strict=True)
    assert pairs_of(attachment) == [("0", "1"), ("2", "3")]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)])
def test_a_pool_between_a_convolution_and_its_neuron(pool: nn.Module) -> None:
    """Gradients: pools.py."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.lif = nn.Conv2d(2, 4, 3, padding=1), pool, tg.LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.pool(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))

    x = spikes(T, B, 2, 6, 6)
    through = tg.attach(Net(), x, spiking_input=True, through_pools=True)
    assert pairs_of(through) == [("conv", "lif")]
    not_through = tg.attach(Net(), x, spiking_input=True, allow_empty=True)
    assert "through_pools=True" in reasons_of(not_through)["conv"]
