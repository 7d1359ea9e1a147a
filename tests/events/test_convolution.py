"""A convolution of what may be spikes: its way, its results, its gradients, and what it keeps."""

import copy
from collections.abc import Callable
from itertools import product

import pytest
import torch
from cases import Case, cases
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.dense import convolve
from tracegrad.events.window import Window

WINDOW = Window(padding=(1, 1))


@pytest.fixture(params=["0", "auto", "1"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRACEGRAD_EVENTS", request.param)
    return request.param


def spikes(rate: float = 0.1, channels: int = 40, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.rand(3, channels, 9, 7, generator=torch.Generator().manual_seed(0)) < rate
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def layer(channels: int = 40, outputs: int = 24, bias: bool = True) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Conv2d(channels, outputs, 3, padding=1, bias=bias)


def run(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, dense: bool, magnitudes: bool = False
) -> list[Tensor | None]:
    """The current, and the gradients of x, weight and bias of a weighted sum of it; or their `magnitudes`, added up."""
    if magnitudes:
        weight, bias = weight.abs(), None if bias is None else bias.abs()
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    z = torch.conv2d(x, weight, bias, *window) if dense else convolve_spikes(x, weight, bias, window)
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(z.shape, generator=generator).to(z.dtype)
    z.backward(gradient.abs() if magnitudes else gradient)
    return [z, x.grad, weight.grad, None if bias is None else bias.grad]


def assert_same(found: list[Tensor | None], truth: list[Tensor | None], tolerance: float) -> None:
    for one, other in zip(found, truth, strict=True):
        if one is None or other is None:
            assert one is other
        else:
            assert one.dtype == other.dtype
            assert (one.double() - other.double()).norm() <= tolerance * other.double().norm() + 1e-12


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_forced_in_float32(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEGRAD_EVENTS", "1")
        found = run(case.x, case.weight, case.bias, case.window, dense=False)
    bias = None if case.bias is None else case.bias.double()
    arguments = case.x.double(), case.weight.double(), bias, case.window
    truth, magnitudes = run(*arguments, dense=True), run(*arguments, dense=True, magnitudes=True)
    for one, other, size in zip(found, truth, magnitudes, strict=True):
        if one is None or other is None or size is None:
            assert one is other
        else:  # sums may cancel, their rounding does not
            assert (one.double() - other).norm() <= 3e-6 * size.norm()


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_forced_in_float64_by_the_twins(case: Case) -> None:
    arguments = case.x.double(), case.weight.double(), None if case.bias is None else case.bias.double(), case.window
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEGRAD_EVENTS", "1")
        found = run(*arguments, dense=False)
    assert_same(found, run(*arguments, dense=True), 1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("autocast", [True, False])
def test_each_mode(mode: str, rate: float, autocast: bool) -> None:
    x, synapse = spikes(rate), layer()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = run(x, synapse.weight, synapse.bias, WINDOW, dense=False)
        truth = run(x, synapse.weight, synapse.bias, WINDOW, dense=True)
    assert_same(found, truth, 0.01 if autocast else 2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_each_type(mode: str, dtype: torch.dtype) -> None:
    x, synapse = spikes(dtype=dtype), layer().to(dtype)
    found = run(x, synapse.weight, synapse.bias, WINDOW, dense=False)
    assert_same(
        found, run(x, synapse.weight, synapse.bias, WINDOW, dense=True), 1e-12 if dtype == torch.float64 else 0.02
    )


@pytest.mark.parametrize("value", [-0.0, 0.5, 2.0, float("nan")])
def test_inputs_that_are_no_spikes_go_the_dense_way(mode: str, value: float) -> None:
    x, synapse = spikes(), layer()
    x[1, 2, 3, 4] = value
    found = run(x, synapse.weight, synapse.bias, WINDOW, dense=False)
    truth = run(x, synapse.weight, synapse.bias, WINDOW, dense=True)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("autocast", [True, False])
def test_what_is_not_finite_comes_out_where_the_dense_way_puts_it(mode: str, value: float, autocast: bool) -> None:
    x, synapse = spikes(), layer()
    weight = synapse.weight.detach().clone()
    weight[3, 5, 1, 2] = value
    gradient = torch.randn(3, 24, 9, 7)
    gradient[1, 4, 3, 2] = value

    def results(convolution: Callable[..., Tensor]) -> list[Tensor]:
        own = synapse.weight.detach().clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            of_broken, z = (convolution(x, given, None, WINDOW) for given in (weight, own))
        z.backward(gradient.to(z.dtype))
        assert own.grad is not None
        return [of_broken.detach(), own.grad]

    for one, other in zip(results(convolve_spikes), results(convolve), strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())
        assert torch.equal(one.isnan(), other.isnan())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_lie_in_memory_as_their_images(mode: str, layout: torch.memory_format) -> None:
    """Batch norms are ten times slower between layouts."""
    for rate in (0.05, 0.9):  # by events and the dense way, where that is chosen
        x = spikes(rate, 64).contiguous(memory_format=layout)
        _, gradient, *_ = run(x, layer(64, outputs=128).weight, None, WINDOW, dense=False)
        assert gradient is not None
        assert gradient.is_contiguous(memory_format=layout)


def test_bits_are_kept_not_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_EVENTS", "auto")
    synapse = layer(64, outputs=128)  # large enough for the event kernels to pay
    for rate, way in product((0.05, 0.9), ("spikes", "analogue")):
        x = spikes(rate, 64) * (1 if way == "spikes" else 0.5)
        saved = kept(x, synapse.weight)
        assert sum(each.nbytes for each in saved) == (x.nbytes // 32 if way == "spikes" else x.nbytes)


def kept(x: Tensor, weight: Tensor) -> list[Tensor]:
    """What is kept for the backward pass beside the weight."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        convolve_spikes(x, weight, None, WINDOW)
    return [each for each in saved if each.shape != weight.shape]


def test_a_checkpoint_is_exact_to_the_bit(mode: str) -> None:
    x, synapse = spikes(), layer()

    def gradients(again: bool) -> list[Tensor]:
        own, start = copy.deepcopy(synapse), x.clone().requires_grad_()
        through = lambda t: convolve_spikes(t, own.weight, own.bias, WINDOW)  # noqa: E731
        z = checkpoint(through, start, use_reentrant=False) if again else through(start)
        assert isinstance(z, Tensor)
        z.square().sum().backward()
        assert start.grad is not None
        return [start.grad, *(parameter.grad for parameter in own.parameters() if parameter.grad is not None)]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(one, other)


def test_no_gradient_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")
    synapse = layer()
    z = convolve_spikes(spikes(), synapse.weight, None, WINDOW)
    (gradient,) = torch.autograd.grad(z.square().sum(), synapse.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_an_unknown_mode_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_EVENTS", "yes")
    with pytest.raises(ValueError, match="TRACEGRAD_EVENTS must be 0, 1 or auto, not 'yes'"):
        convolve_spikes(spikes(), layer().weight, None, WINDOW)


@pytest.mark.parametrize("images", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
def test_currents_lie_in_memory_as_pytorch_lays_them(
    mode: str, images: torch.memory_format, weights: torch.memory_format
) -> None:
    """A network may take views of them."""
    x, weight = spikes().contiguous(memory_format=images), layer().weight.contiguous(memory_format=weights)
    found, expected = convolve_spikes(x, weight, None, WINDOW), torch.conv2d(x, weight, None, *WINDOW)
    assert found.stride() == expected.stride()
