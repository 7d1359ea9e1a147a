"""What attach pairs, what it leaves out and why, what it refuses, and that it leaves no trace."""

import copy

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 2


def over_time(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Chain(nn.Module):
    """Frames [T, B, 3, 8, 8] through stem, then two convolutions with their neurons, to a classifier."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.stem, self.neuron0 = nn.Conv2d(3, 4, 3, padding=1), tg.LIF()
        self.conv1, self.neuron1 = nn.Conv2d(4, 4, 3, padding=1, **options), tg.LIF()
        self.conv2, self.norm, self.neuron2 = nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), tg.LIF()
        self.dropout, self.head = nn.Dropout(), nn.Linear(6, 2)

    def between(self, current: Tensor) -> Tensor:
        return current

    def spikes(self, spikes: Tensor) -> Tensor:
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron0(over_time(self.stem, x))
        s = self.neuron1(self.between(over_time(self.conv1, self.spikes(s))))
        s = self.neuron2(over_time(self.norm, over_time(self.conv2, s)))
        return self.head(self.dropout(s.mean((3, 4))))


def chain(between=None, spikes=None, **options) -> Chain:
    torch.manual_seed(0)
    model = Chain(**options)
    model.between = between or model.between
    model.spikes = spikes or model.spikes
    return model


def frames() -> Tensor:
    return torch.randn(T, B, 3, 8, 8, generator=torch.Generator().manual_seed(0))


ALL = [("conv1", "neuron1"), ("conv2", "neuron2")]
ENDS = ["stem", "head"]


def test_pairs_and_reasons() -> None:
    a = tg.attach(chain(), frames())
    assert a.pairs == ALL
    reasons = dict(a.skipped)
    assert list(reasons) == ENDS
    assert "no pre-synaptic spikes: its input is the data" in reasons["stem"]
    assert "no post-synaptic neuron" in reasons["head"]


def test_the_table_names_every_synapse() -> None:
    table = str(tg.attach(chain(), frames()))
    assert table.startswith("gradient scaling of 2 of 4 synapses")
    for text in ("stem", "conv1", "conv2", "head", "neuron1", "6x4x3x3", "its input is the data"):
        assert text in table


def test_input_that_is_spikes_pairs_the_stem() -> None:
    assert tg.attach(chain(), (frames() > 0).float(), spiking_input=True).pairs == [("stem", "neuron0"), *ALL]


def test_input_that_is_not_spikes_is_told() -> None:
    a = tg.attach(chain(), frames(), spiking_input=True)
    assert a.pairs == ALL
    assert "data with values other than 0 and one height" in dict(a.skipped)["stem"]


@pytest.mark.parametrize(
    "between",
    [
        lambda z: z * 2 + 1,
        lambda z: z * torch.ones(T, 1, 1, 1, 1, requires_grad=True),
        lambda z: z + torch.zeros(z.shape, requires_grad=True),
        lambda z: nn.functional.layer_norm(z, z.shape[-2:]),
        lambda z: (z - z.mean((0, 1, 3, 4), keepdim=True)) / z.var((0, 1, 3, 4), keepdim=True).add(1e-5).sqrt(),
        lambda z: nn.functional.dropout(z, 0.3),
        lambda z: z.mean(0, keepdim=True).expand_as(z),
        lambda z: z.transpose(2, 3).relu().transpose(2, 3),
        lambda z: z.contiguous(memory_format=torch.contiguous_format).reshape(T * B, -1).reshape(z.shape),
    ],
    ids=[
        "affine",
        "parameter",
        "bias-per-element",
        "layer-norm",
        "norm-by-hand",
        "dropout",
        "mean-over-time",
        "there-and-back",
        "reshape",
    ],
)
def test_what_may_stand_between_a_synapse_and_its_neuron(between) -> None:
    assert tg.attach(chain(between), frames()).pairs == ALL


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda z: nn.functional.avg_pool3d(z, (1, 2, 2)), "AvgPool3D"),
        (lambda z: over_time(nn.MaxPool2d(2), z), "pooled"),
        (lambda z: over_time(nn.AdaptiveAvgPool2d(4), z), "pooled"),
        (lambda z: z.transpose(3, 4), "permuted"),
        (lambda z: z.transpose(0, 1).transpose(1, 2).transpose(0, 2).transpose(1, 2).flip(3), "Flip"),
        (lambda z: z * z.sigmoid(), "multiplied by another one"),
        (lambda z: z.cumsum(0), "Cumsum"),
        (lambda z: z @ torch.ones(8, 8, requires_grad=True), "Bmm|Mm|View"),
    ],
    ids=["pool3d", "max-pool", "adaptive-pool", "permuted", "flipped", "product", "cumulated", "mixed"],
)
def test_what_may_not_stand_between_them_is_told(between, reason: str) -> None:
    a = tg.attach(chain(between), frames())
    assert a.pairs == [("conv2", "neuron2")]
    assert [name for name, _ in a.skipped] == ["stem", "conv1", "head"]
    assert any(word in dict(a.skipped)["conv1"] for word in reason.split("|")), dict(a.skipped)["conv1"]


@pytest.mark.parametrize(
    "spikes",
    [
        lambda s: over_time(nn.MaxPool2d(2), s),
        lambda s: over_time(nn.AvgPool2d(2), s),
        lambda s: over_time(nn.Dropout2d(), s),
        lambda s: over_time(nn.Upsample(scale_factor=2), s),
        lambda s: s + s.roll(1, 0).detach() * 0 + s,
        lambda s: torch.cat([s[:, :, :2], s[:, :, 2:]], 2),
        lambda s: s * (1 - s),
    ],
    ids=["max-pool", "avg-pool", "dropout", "upsample", "sum", "concatenation", "and-not"],
)
def test_what_spikes_may_pass_on_their_way_in(spikes) -> None:
    assert tg.attach(chain(spikes=spikes), frames()).pairs == ALL


@pytest.mark.parametrize(
    ("spikes", "reason"),
    [
        (lambda s: over_time(nn.BatchNorm2d(4), s), "has passed NativeBatchNorm"),
        (lambda s: s + torch.zeros(4, 8, 8, requires_grad=True), "a parameter is mixed into its input"),
        (torch.rand_like, "its input is a constant"),
        (lambda s: s.softmax(2), "has passed Softmax"),
    ],
    ids=["norm", "parameter", "constant", "softmax"],
)
def test_what_they_may_not_is_told(spikes, reason: str) -> None:
    a = tg.attach(chain(spikes=spikes), frames())
    assert a.pairs == [("conv2", "neuron2")]
    assert reason in dict(a.skipped)["conv1"]


def test_currents_that_drive_a_synapse_are_told() -> None:
    model = chain()
    model.neuron0 = nn.Identity()
    a = tg.attach(model, frames())
    assert "in part, the current of stem" in dict(a.skipped)["conv1"]


def test_synapses_that_are_not_called_or_not_known_are_listed() -> None:
    model = chain()
    model.unused, model.form = nn.Linear(2, 2), nn.Bilinear(2, 2, 2)
    model.table = nn.Parameter(torch.zeros(2, 2))
    reasons = dict(tg.attach(model, frames()).skipped)
    assert "not called" in reasons["unused"]
    assert "Bilinear is not supported" in reasons["form"]
    assert "Chain did not use it in a way that is known" in reasons["table"]


def test_strict_refuses_what_would_be_left_out_and_installs_nothing() -> None:
    model = chain()
    before = set(model.conv1.__dict__)
    with pytest.raises(ValueError, match=r"strict=True, but 2 synapses would be left out; stem: no pre-synaptic"):
        tg.attach(model, frames(), strict=True)
    assert set(model.conv1.__dict__) == before


def test_the_authors_scope_and_relation_on_resnet20() -> None:
    model, image = tg.models.resnet20(width=4), torch.randn(1, 3, 16, 16)
    a = tg.attach(model, image, scope="same-shape")
    assert len(a.pairs) == 16
    assert all("shortcut" not in name for name, _ in a.pairs)
    reasons = dict(a.skipped)
    assert len(reasons) == 7
    assert "scope='same-shape'" in reasons["stages.1.0.conv1"]
    a.detach()
    a = tg.attach(model, image, relation="pre_pre")
    assert "its two ends differ in shape" in dict(a.skipped)["stages.1.0.conv1"]
    model(image).sum().backward()


def test_every_norm_leaves_the_same_pairs() -> None:
    image = torch.randn(1, 3, 16, 16)
    for norm in ("tdbn", "time_mean"):
        assert len(tg.attach(tg.models.resnet20(width=4, norm=norm), image).pairs) == 21, norm


def test_pre_pre_correlates_the_pre_synaptic_trace_with_itself() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.neuron = nn.Linear(5, 5), tg.LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.linear(x))

    torch.manual_seed(0)
    model, x = One().double(), (torch.rand(T, B, 5) < 0.5).double()
    a = tg.attach(model, x, relation="pre_pre", normalize="none", time="per_step", spiking_input=True, record=True)
    model(x).sum().backward()
    trace = tg.spike_trace(x)
    torch.testing.assert_close(a.relations["linear"], torch.einsum("tbo,tbi->toi", trace, trace))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], not 1.5"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], not -0.1"),
        ({"alpha": float("nan")}, r"alpha must be in \[0, 1\], not nan"),
        ({"relation": "postive"}, r"unknown relation 'postive'; the known ones are .*'positive'"),
        ({"normalize": "sum"}, r"unknown normalization 'sum'; the known ones are 'centered', 'cosine', 'lift', 'max'"),
        ({"scaling": "cubic"}, r"unknown scaling 'cubic'; the known ones are .*'linear'"),
        ({"time": "last"}, r"unknown time 'last'; the known ones are 'per_step', 'mean', 'final'"),
        ({"scope": "some"}, r"unknown scope 'some'; the known ones are 'all', 'same-shape'"),
    ],
)
def test_unknown_options_name_the_valid_ones(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tg.attach(chain(), frames(), **options)


def test_attached_twice() -> None:
    model = chain()
    a = tg.attach(model, frames())
    with pytest.raises(
        ValueError, match=r"conv1 has gradient scaling attached already, or is accelerated: call detach\(\)"
    ):
        tg.attach(model, frames())
    a.detach()
    a.detach()
    tg.attach(model, frames())


def test_no_neuron_that_is_known() -> None:
    with pytest.raises(ValueError, match=r"no neuron that is known; register its class: tg.register_neuron"):
        tg.attach(nn.Linear(2, 2), torch.zeros(1, 2))


def test_a_neuron_of_ones_own() -> None:
    @tg.register_neuron
    class Mine(nn.Module):
        def forward(self, currents: Tensor) -> Tensor:
            return tg.LIF()(currents)

    model = chain()
    model.neuron1 = Mine()
    assert tg.attach(model, frames()).pairs == ALL
    with pytest.raises(TypeError, match="a neuron is a subclass of torch.nn.Module"):
        tg.register_neuron(lambda x: x)


def test_time_that_changes_within_one_call() -> None:
    a = tg.attach(chain(lambda z: z.reshape(2, 2 * B, *z.shape[2:])), frames())
    assert a.pairs == [("conv2", "neuron2")]
    assert "takes T = 2 steps, but those before it another number: T = 4 of neuron0" in dict(a.skipped)["conv1"]
    model = chain()
    tg.attach(model, frames())
    model.between = lambda z: z.reshape(2, 2 * B, *z.shape[2:])
    with pytest.raises(ValueError, match=r"neuron1 fired over T = 2 steps, but T = 4 earlier"):
        model(frames())


def test_another_number_of_steps_than_the_example() -> None:
    model, longer = chain().double().eval(), torch.randn(7, B, 3, 8, 8).double()
    tg.attach(model, frames().double(), alpha=0.5)
    model(longer).sum().backward()
    got = model.conv1.weight.grad.clone()
    tg.detach(model)
    model.zero_grad()
    tg.attach(model, longer, alpha=0.5)
    model(longer).sum().backward()
    torch.testing.assert_close(model.conv1.weight.grad, got, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, B])
def test_time_folded_behind_the_batch(batch: int) -> None:
    """An example of one input pairs as one of several, though both ways to fold look the same there."""

    class Folded(Chain):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.batch_first = batch_first

        def forward(self, x: Tensor) -> Tensor:
            steps = len(x)
            for synapse, neuron in ((self.stem, self.neuron0), (self.conv1, self.neuron1), (self.conv2, self.neuron2)):
                if self.batch_first:
                    current = synapse(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (-1, steps)).transpose(0, 1)
                else:
                    current = over_time(synapse, x)
                x = neuron(current)
            return x

    gradients = []
    for batch_first in (True, False):
        torch.manual_seed(0)
        model, x = Folded(batch_first).double(), frames().double()
        assert tg.attach(model, x[:, :batch], alpha=0.9).pairs == ALL
        model(x).square().sum().backward()
        gradients.append(model.conv2.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_padding_other_than_zeros() -> None:
    model, x = chain(padding_mode="circular").double(), frames().double()
    a = tg.attach(model, x, time="final", alpha=1.0, normalize="none", record=True)
    assert a.pairs == ALL
    spikes = {}
    for name in ("neuron0", "neuron1"):
        model.get_submodule(name).register_forward_hook(lambda _, __, s, n=name: spikes.update({n: s.detach()}))
    model(x).sum().backward()
    pre, post = (tg.spike_trace(spikes[name])[-1] for name in ("neuron0", "neuron1"))
    padded = nn.functional.pad(pre, (1, 1, 1, 1), mode="circular")
    expected = tg.correlate(padded, post, nn.Conv2d(4, 4, 3))
    torch.testing.assert_close(a.relations["conv1"], expected)


def test_lazy_and_compiled_models_are_refused() -> None:
    model = chain()
    model.head = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="head.weight is lazy and has no shape yet: run the model once"):
        tg.attach(model, frames())
    with pytest.raises(ValueError, match="the model is compiled already: attach to the plain model"):
        tg.attach(torch.compile(chain()), frames())


def test_more_calls_than_in_the_example_are_refused() -> None:
    model = chain()
    tg.attach(model, frames())
    model.between = lambda z: over_time(model.conv1, z)
    with pytest.raises(ValueError, match=r"conv1 is called more often \(2 times\) than in attach's example"):
        model(frames())


def test_the_example_forward_pass_changes_nothing() -> None:
    model, x = chain(), frames()
    model(x).sum().backward()
    model.head.eval()
    state = copy.deepcopy(model.state_dict())
    buffers = {name: (id(buffer), buffer._version) for name, buffer in model.named_buffers()}
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    random, before = torch.get_rng_state(), x.clone()
    with torch.no_grad():
        tg.attach(model, x)
    assert torch.equal(torch.get_rng_state(), random), "the random state moved"
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(x, before)
    assert not x.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), f"{name} changed"
    assert {name: (id(buffer), buffer._version) for name, buffer in model.named_buffers()} == buffers
    for name, value in model.named_parameters():
        assert torch.equal(value.grad, gradients[name]), f"the gradient of {name} changed"


def test_an_example_that_fails_leaves_the_model_usable() -> None:
    model = chain()
    with pytest.raises(RuntimeError):
        tg.attach(model, torch.randn(T, B, 5, 8, 8))
    model(frames())
    assert tg.attach(model, frames()).pairs == ALL


def everything(module: nn.Module) -> dict[str, object]:
    """All that Python knows of a module and its parts, hooks included."""
    return {
        f"{name}.{key}": (type(part), {**value} if isinstance(value, dict) else value)
        for name, part in module.named_modules()
        for key, value in part.__dict__.items()
        if key not in ("_parameters", "_buffers", "_modules")
    }


def test_attach_and_detach_leave_the_model_as_it_was() -> None:
    model, x = chain().eval(), frames()
    before, keys, outputs = everything(model), list(model.state_dict()), model(x)
    a = tg.attach(model, x)
    assert list(model.state_dict()) == keys, "state_dict keys changed"
    assert torch.equal(model(x), outputs), "outputs changed"
    assert everything(model) != before
    a.detach()
    assert everything(model) == before
    assert torch.equal(model(x), outputs)


def test_detach_by_model_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match="no gradient scaling is attached to this model"):
        tg.detach(chain())
