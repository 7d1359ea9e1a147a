"""Norms and neurons in one pass against the same modules called one by one."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracegrad as tg
from tracegrad.core import compiled as compilation
from tracegrad.snn.fire_on import fire_on
from tracegrad.snn.norms import TDBatchNorm2d

KINDS = ("one norm", "norm and spikes", "two norms", "still image")


class Layer(nn.Module):
    """A neuron with what drives it."""

    def __init__(self, kind: str, channels: int, surrogate: str = "boxcar", **options: object) -> None:
        super().__init__()
        self.kind = kind
        self.neuron = tg.LIF(surrogate=surrogate, **options)
        self.norm = TDBatchNorm2d(channels)
        self.shortcut_norm = TDBatchNorm2d(channels, 0.7)
        for norm in (self.norm, self.shortcut_norm):
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)
            norm.running_mean.normal_(0, 0.2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.kind == "still image":
            return fire_on(self.neuron, (first[:1], self.norm), time_steps=len(first))
        others = {"norm and spikes": [(second, None)], "two norms": [(second, self.shortcut_norm)]}
        return fire_on(self.neuron, (first, self.norm), *others.get(self.kind, []))


def one_by_one(layer: Layer) -> Layer:
    """The same layer, whose norms and neuron are called: a hook reads the neuron's input."""
    twin = copy.deepcopy(layer)
    twin.neuron.register_forward_pre_hook(lambda _, arguments: None)
    return twin


def inputs(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def channels_last() -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).to(dtype)

    return [channels_last().requires_grad_(), (channels_last() > 1).to(dtype).requires_grad_(), channels_last()]


def results(layer: Layer, first: Tensor, second: Tensor, weights: Tensor) -> dict[str, Tensor]:
    spikes = layer(first, second)
    given = {"first": first, "second": second, **dict(layer.named_parameters())}
    found = torch.autograd.grad(spikes, list(given.values()), weights.expand_as(spikes), allow_unused=True)
    gradients = {f"gradient of {name}": value for name, value in zip(given, found, strict=True) if value is not None}
    return {"spikes": spikes, **gradients, **dict(layer.named_buffers())}


def agree(layer: Layer, tensors: list[Tensor]) -> None:
    """The layer against its twin in float64: element by element, to 1e-12 or in float32 to 1e-5 of the largest value.

    The gradients of gamma and beta are sums whose terms cancel, so that in float32 their own size does not bound their
    rounding: there their error is measured by the norm of all gradients.
    """
    exact = tensors[0].dtype == torch.float64
    doubled = [x.detach().double().requires_grad_(x.requires_grad) for x in tensors]
    expected, got = results(one_by_one(layer).double(), *doubled), results(layer, *tensors)
    assert got.keys() == expected.keys()
    got, expected = ({name: value.double() for name, value in each.items()} for each in (got, expected))
    differ = (got["spikes"] != expected["spikes"]).double().mean()
    assert differ <= (0 if exact else 2e-3), f"{differ:.2%} of the spikes differ"
    if differ:
        return
    sums = set() if exact else {f"gradient of {name}" for name, _ in layer.named_parameters()}
    for name in got.keys() - sums:
        tolerance = 1e-12 if exact else 1e-5
        bound = tolerance if exact else tolerance * max(1, expected[name].abs().max().item())
        torch.testing.assert_close(
            got[name], expected[name], rtol=tolerance, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )
    gradients = [name for name in got if name.startswith("gradient")]
    values, truth = (torch.cat([each[name].flatten() for name in gradients]) for each in (got, expected))
    error = ((values - truth).norm() / truth.norm().clamp(min=1e-9)).item()
    assert error < 1e-5, f"the gradients differ by {error:.1e} of their norm"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles layers of any size."""
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)


@pytest.fixture
def equations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the one pass for layers of any size, as PyTorch operations."""
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
    monkeypatch.setattr(compilation, "has_compiler", lambda device: False)
    compilation._kernel.cache_clear()
    yield
    compilation._kernel.cache_clear()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_is_the_modules_one_by_one(kind: str, training: bool, equations: None) -> None:
    agree(Layer(kind, 3).double().train(training), inputs((4, 2, 3, 5, 5), torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_it_is_so_too(kind: str, compiled: None) -> None:
    sizes = st.tuples(st.just(4), *[st.integers(1, 9)] * 4)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(sizes, st.booleans(), st.sampled_from(["soft", "hard"]), st.integers(0, 10**6))
    def check(shape: tuple[int, ...], training: bool, reset: str, seed: int) -> None:
        if shape[1] * shape[3] * shape[4] < 2:
            return  # a norm needs more than one value per channel
        torch.manual_seed(seed)
        for dtype, surrogate in ((torch.float64, "boxcar"), (torch.float32, "triangle")):
            layer = Layer(kind, shape[2], surrogate, reset=reset, rest=-0.2).to(dtype).train(training)
            agree(layer, inputs(shape, dtype, seed))

    check()


def test_compiled_in_short(compiled: None) -> None:
    agree(Layer("two norms", 16).double(), inputs((4, 2, 16, 8, 8), torch.float64))


def test_bfloat16_currents_keep_statistics_and_membranes_in_float32(equations: None) -> None:
    first, second, _ = (x.detach() for x in inputs((4, 2, 3, 8, 8), torch.bfloat16))
    layer = Layer("norm and spikes", 3)
    twin = copy.deepcopy(layer)
    spikes = layer(first, second)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), twin(first.float(), second.float()))
    assert torch.equal(layer.norm.running_var, twin.norm.running_var)


def test_a_hook_on_the_neuron_gets_the_true_currents(equations: None) -> None:
    layer, tensors = Layer("norm and spikes", 3).double(), inputs((4, 2, 3, 5, 5), torch.float64)
    heard: list[Tensor] = []
    expected = one_by_one(layer)(*tensors[:2])
    layer.neuron.register_forward_hook(lambda _, arguments, __: heard.append(arguments[0]))
    before = copy.deepcopy(layer.norm)
    assert torch.equal(layer(*tensors[:2]), expected)
    torch.testing.assert_close(heard[0], before(tensors[0]) + tensors[1])


def test_only_the_convolutions_output_is_kept(equations: None) -> None:
    kept: list[Tensor] = []
    layer, (first, second, _) = Layer("norm and spikes", 3), inputs((4, 2, 3, 5, 5), torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(first, second)
    assert {tensor.data_ptr() for tensor in kept if tensor.numel() > 3} == {first.data_ptr(), second.data_ptr()}


def test_gradients_of_gradients(equations: None) -> None:
    layer, (first, second, weights) = Layer("two norms", 3, "sigmoid").double(), inputs((4, 2, 3, 5, 5), torch.float64)

    def second_order(layer: Layer) -> list[Tensor]:
        given = [first, second, layer.norm.weight, layer.norm.bias]
        gradients = torch.autograd.grad(layer(first, second), given, weights, create_graph=True)
        return list(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), given))

    for got, expected in zip(second_order(layer), second_order(one_by_one(layer)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_under_a_checkpoint(equations: None) -> None:
    layer, (first, second, weights) = Layer("two norms", 3).double(), inputs((4, 2, 3, 5, 5), torch.float64)
    expected = torch.autograd.grad(layer(first, second), [first, layer.norm.weight], weights)
    spikes = checkpoint(layer, first, second, use_reentrant=False)
    for got, value in zip(torch.autograd.grad(spikes, [first, layer.norm.weight], weights), expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-12, atol=1e-12)


def test_networks_of_any_size_share_what_was_compiled(compiled: None) -> None:
    torch._dynamo.reset()
    compilation._kernel.cache_clear()
    torch._dynamo.utils.counters.clear()
    for channels, size in ((16, 8), (32, 12), (48, 6)):
        layer, (first, second, weights) = (
            Layer("one norm", channels),
            inputs((4, 2, channels, size, size), torch.float32),
        )
        (layer(first, second) * weights).sum().backward()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs <= 5, f"{graphs} graphs were compiled; five passes make the norm and the neuron"
