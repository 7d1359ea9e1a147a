"""`docs/attach/networks.md`, what may be between synapses and neurons: each row by an example."""

import pytest
import torch
import torch.nn.functional as F
from spiking import TimeFirst
from torch import Tensor, nn

import tracegrad as tg
from small_networks import B, Between, N, T, assert_listed, assert_scaled, spikes
from table_rows import Rows

ROWS = Rows("docs/attach/networks.md", "Between a synapse and its neuron", "Between a neuron and the next synapse")
PAIRS = (("first", "neuron0"), ("second", "neuron1"))


@ROWS.row("batch, group, instance, layer and RMS norms", "yes")
def norms() -> None:
    for norm in (
        lambda z: nn.BatchNorm1d(N).double()(z.flatten(0, 1)).unflatten(0, z.shape[:2]),
        lambda z: nn.GroupNorm(2, N).double()(z.flatten(0, 1)).unflatten(0, z.shape[:2]),
        lambda z: F.instance_norm(z),
        lambda z: F.layer_norm(z, (N,)),
        lambda z: F.rms_norm(z, (N,)),
        lambda z: (z - z.mean((0, 1))) / (z.var((0, 1)) + 1e-5).sqrt(),
    ):
        assert_scaled(Between(norm), spikes(), *PAIRS)


@ROWS.row("sums with other currents or spikes", "yes")
def sums_and_products() -> None:
    gain = torch.linspace(0.5, 1.5, N, requires_grad=True)
    for arithmetic in (lambda z: 0.5 * z - 0.1, lambda z: gain * z + gain, lambda z: F.dropout(z, 0.2)):
        assert_scaled(Between(arithmetic), spikes(), *PAIRS)

    class Membranes(Between):
        """The current of the first layer goes on beside the second one's, as in MS-ResNet."""

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            s = self.neuron0(z)
            return self.neuron1(self.second(s) + z + s)

    assert_scaled(Membranes(), spikes(), ("first", "neuron0"), ("first", "neuron1"), ("second", "neuron1"))


@ROWS.row("ReLU, GELU, SiLU", "yes")
def activations() -> None:
    for activation in (F.relu, F.gelu, F.silu, torch.tanh, torch.sigmoid, lambda z: z.clamp(0, 2)):
        assert_scaled(Between(activation), spikes(), *PAIRS)


@ROWS.row("reshapes, and permutations that are undone", "yes")
def reshapes() -> None:
    assert_scaled(Between(lambda z: z.permute(2, 0, 1).relu().permute(1, 2, 0)), spikes(), *PAIRS)
    assert_scaled(Between(lambda z: z.reshape(T * B, 2, -1).reshape(z.shape)), spikes(), *PAIRS)


@ROWS.row("a maximum or average pool", "option")
def pools() -> None:
    for pool in (F.max_pool1d, F.avg_pool1d):
        model = Between(lambda z, pool=pool: pool(z, 2), neuron=TimeFirst(0.8))
        assert_listed(model, spikes(), "second", "through_pools=True looks through pools")
        assert_scaled(Between(model.currents, neuron=TimeFirst(0.8)), spikes(), *PAIRS, through_pools=True)


@ROWS.row("a permutation, a selection, a repetition", "listed")
def moved() -> None:
    for move, reason in (
        (lambda z: z.transpose(0, 1).reshape(z.shape), "its current is permuted"),
        (lambda z: z[:, :, [1, 0, 2, 3, 4, 5]], "passes Index"),
        (lambda z: z[:, :, :3], "passes Slice"),
        (lambda z: z.repeat(2, 1, 1), "passes Repeat"),
        (lambda z: F.pad(z[:-1], (0, 0, 0, 0, 1, 0)), "passes ConstantPadNd"),
    ):
        assert_listed(Between(move), spikes(), "second", reason)


@ROWS.row("a product with another current", "listed")
def products() -> None:
    for product, reason in (
        (lambda z: z * z.sigmoid(), "multiplied by another one"),
        (lambda z: z @ z.transpose(1, 2) @ z, "passes Bmm"),
        (lambda z: z.cumsum(0), "passes Cumsum"),
        (lambda z: z.sum(0, keepdim=True), "passes Sum"),
    ):
        assert_listed(Between(product), spikes(), "second", reason)


@ROWS.row("a neuron for several layers", "yes")
def several() -> None:
    class Fork(Between):
        def forward(self, x: Tensor) -> Tensor:
            s = self.neuron0(self.first(x))
            return self.neuron1(self.second(s) + self.third(s)) + self.neuron2(self.second(s))

    model = Fork()
    model.third, model.neuron2 = nn.Linear(N, N), TimeFirst()
    assert_scaled(model, spikes(), PAIRS[0], ("second", "neuron1"), ("second", "neuron2"), ("third", "neuron1"))
    model = Between()
    model.neuron1 = model.neuron0
    assert_scaled(model, spikes(), ("first", "neuron0"), ("second", "neuron0"))


@ROWS.row("maximum and average pools, dropout", "yes")
def moved_spikes() -> None:
    for width, move in (
        (3, lambda s: F.max_pool1d(s, 2)),
        (3, lambda s: F.avg_pool1d(s, 2)),
        (N, lambda s: F.dropout(s, 0.2)),
        (N, lambda s: s.unflatten(2, (2, -1)).transpose(2, 3).flatten(2)),
        (3, lambda s: s[:, :, ::2]),
        (2 * N, lambda s: torch.cat([s, s], 2)),
        (N + 2, lambda s: F.pad(s, (1, 1))),
        (2 * N, lambda s: F.interpolate(s, scale_factor=2)),
    ):
        assert_scaled(Between(spikes=move, synapse=nn.Linear(width, N)), spikes(), *PAIRS)


@ROWS.row("sums and products with other spikes", "yes")
def sums_of_spikes() -> None:
    for combine in (lambda s: s + s, lambda s: s * (1 - s.flip(2)), lambda s: F.pad(s[:-1], (0, 0, 0, 0, 1, 0))):
        assert_scaled(Between(spikes=combine), spikes(), *PAIRS)


@ROWS.row("a norm, an activation, a softmax", "listed")
def no_spikes() -> None:
    for change in (lambda s: F.layer_norm(s, (N,)), F.relu, lambda s: s.softmax(-1)):
        assert_listed(Between(spikes=change), spikes(), "second", "which does not keep spikes")


@ROWS.row("a matrix product with other spikes", "listed")
def attention() -> None:
    class Attention(nn.Module):
        def __init__(self, fires: bool) -> None:
            super().__init__()
            for name in "qkv":
                setattr(self, name, nn.Sequential(nn.Linear(N, N), TimeFirst()))
            self.fires = TimeFirst() if fires else nn.Identity()
            self.project, self.neuron = nn.Linear(N, N), TimeFirst()

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            return self.neuron(self.project(self.fires(0.2 * q @ k.transpose(-2, -1) @ v)))

    x = spikes(T, B, 5, N)
    heads = tuple((f"{name}.0", f"{name}.1") for name in "qkv")
    attachment = assert_listed(Attention(fires=False), x, "project", "has passed Bmm, which does not keep spikes")
    assert attachment.pairs == list(heads)
    assert tg.attach(Attention(fires=True).double(), x, spiking_input=True).pairs == [*heads, ("project", "neuron")]


@pytest.mark.parametrize("row", ROWS.claims)
def test_between(row: str) -> None:
    ROWS.run(row)
