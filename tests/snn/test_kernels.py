"""The compiled neurons against autograd through the plain equations."""

import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import tracegrad as tg
from tracegrad.core import compiled as compilation
from tracegrad.snn.dynamics import Dynamics, NeuronParameters, backpropagate, fire, integrate_and_fire
from tracegrad.snn.surrogate import SURROGATES

BUILT_IN = ("boxcar", "narrow_boxcar", "triangle", "arctan", "sigmoid")
LAYOUTS = ("contiguous", "channels-last", "same-at-each-step")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles layers of any size."""
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)


def currents(seed: int, shape: tuple[int, ...], layout: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random currents, in which no membrane meets the threshold or a surrogate's edge but by an unlikely accident."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if layout == "channels-last" and len(shape) == 5:
        z = z.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    if layout == "same-at-each-step":
        z = z[:1].expand(shape)
    return z.to(dtype)


def numbers(leak: float, threshold: float, rest: float = 0.0, initial: float = 0.0) -> NeuronParameters:
    return NeuronParameters(*(torch.tensor(value, dtype=torch.float64) for value in (leak, threshold, rest, initial)))


def plain(dynamics: Dynamics, parameters: NeuronParameters, z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    s = integrate_and_fire(dynamics, z, parameters)
    return s.detach(), torch.autograd.grad(s, z, weights)[0]


DYNAMICS = st.builds(
    Dynamics,
    reset=st.sampled_from(["soft", "hard"]),
    surrogate=st.sampled_from([SURROGATES[name] for name in BUILT_IN]),
    detach_reset=st.booleans(),
    detach_membrane=st.booleans(),
)
NUMBERS = st.builds(
    numbers, st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.floats(0.2, 2), st.sampled_from([0.0, -0.3]), st.floats(-1, 1)
)
SHAPES = st.one_of(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(st.integers(1, 6), *[st.integers(1, 4)] * 4))


@given(DYNAMICS, NUMBERS, SHAPES, st.sampled_from(LAYOUTS), st.integers(0, 10**6))
def test_the_gradients_by_hand_are_those_of_autograd(dynamics, values, shape, layout, seed) -> None:
    z, weights = currents(seed, shape, layout).detach().requires_grad_(), currents(seed + 1, shape, "contiguous")
    # A value of its own for each neuron, so that every term of the sums is compared.
    parameters = NeuronParameters(*(value.expand(shape[1:]).clone().requires_grad_() for value in values))
    spikes = integrate_and_fire(dynamics, z, parameters)
    given = (z, *parameters)
    expected = torch.autograd.grad(spikes, given, weights, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        assert torch.equal(torch.stack(fire(dynamics, list(z), parameters)), spikes)
        grad_currents, grad_parameters = backpropagate(dynamics, list(z), parameters, list(weights))
    got = (torch.stack(grad_currents), *grad_parameters)
    for name, value, other in zip(("z", *NeuronParameters._fields), got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("detached", [None, "detach_reset", "detach_membrane"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("surrogate", BUILT_IN)
def test_compiled_neurons_are_the_plain_ones(surrogate: str, reset: str, detached: str | None, compiled: None) -> None:
    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(SHAPES, st.sampled_from(LAYOUTS), st.sampled_from([0.5, 1.25]), st.integers(0, 10**6))
    def check(shape: tuple[int, ...], layout: str, threshold: float, seed: int) -> None:
        options = {detached: True} if detached else {}
        neuron = tg.LIF(0.75, threshold, reset, -0.25, surrogate, initial=0.125, **options)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            z = currents(seed, (4, *shape[1:]), layout, dtype).detach().requires_grad_()
            weights = currents(seed + 1, z.shape, "contiguous", dtype)
            spikes, expected = plain(neuron.dynamics, numbers(0.75, threshold, -0.25, 0.125), z, weights)
            s = neuron(z)
            assert [n for n in s[0].stride() if n > 1] == [n for n in torch.empty_like(z)[0].stride() if n > 1]
            assert (s != spikes).float().mean() <= (0 if dtype == torch.float64 else 1e-3)
            if torch.equal(s, spikes):
                torch.testing.assert_close(
                    torch.autograd.grad(s, z, weights)[0], expected, rtol=tolerance, atol=tolerance
                )

    check()


def test_compiled_in_short(compiled: None) -> None:
    neuron, z = tg.LIF(), currents(0, (4, 2, 3, 5, 5), "channels-last").requires_grad_()
    weights = currents(1, z.shape, "contiguous")
    spikes, expected = plain(neuron.dynamics, numbers(0.9, 0.5), z, weights)
    s = neuron(z)
    assert torch.equal(s, spikes)
    assert s[0].is_contiguous(memory_format=torch.channels_last), "channels-last was lost"
    torch.testing.assert_close(torch.autograd.grad(s, z, weights)[0], expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_currents_keep_their_membranes_in_float32(compiled: None) -> None:
    z = currents(0, (4, 2, 3, 5, 5), "contiguous").bfloat16()
    s = tg.LIF()(z)
    assert s.dtype == torch.bfloat16
    assert torch.equal(s.float(), tg.LIF()(z.float()))


def test_layers_of_any_size_share_what_was_compiled(compiled: None) -> None:
    torch._dynamo.reset()
    compilation._kernel.cache_clear()
    torch._dynamo.utils.counters.clear()
    for size in (2, 3, 5, 7, 11, 13):
        neuron = tg.LIF(leak=1 - size / 20)
        z = currents(0, (4, 2, 3, size, size), "contiguous").requires_grad_()
        neuron(z).sum().backward()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs <= 2, f"{graphs} graphs were compiled for one kind of neuron; one for each direction would do"


def test_only_what_the_backward_pass_needs_is_kept(compiled: None) -> None:
    kept: list[Tensor] = []
    z = currents(0, (4, 2, 3, 5, 5), "contiguous").requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        tg.LIF()(z)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() > 1] == [z.data_ptr()]


def test_gradients_of_gradients(compiled: None) -> None:
    neuron = tg.LIF(surrogate="sigmoid")
    z, weights = currents(0, (4, 2, 3), "contiguous").requires_grad_(), currents(1, (4, 2, 3), "contiguous")

    def second(spikes: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(spikes, z, weights, create_graph=True)
        return torch.autograd.grad(first.square().sum(), z)[0]

    expected = second(integrate_and_fire(neuron.dynamics, z, numbers(0.9, 0.5)))
    torch.testing.assert_close(second(neuron(z)), expected, rtol=1e-12, atol=1e-12)


def test_without_a_compiler_neurons_run_with_one_warning(compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    compilation.has_compiler.cache_clear()
    compilation._kernel.cache_clear()
    z = currents(0, (4, 2, 3), "contiguous").requires_grad_()
    try:
        with pytest.warns(UserWarning, match="neurons run uncompiled.*'no-such-compiler'"):
            s = tg.LIF()(z)
        s.sum().backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tg.LIF(leak=0.3)(z)
    finally:
        compilation.has_compiler.cache_clear()
        compilation._kernel.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the compiled neurons were not run on one")
def test_on_a_gpu(compiled: None) -> None:
    neuron, z = tg.LIF(), currents(0, (4, 2, 3, 5, 5), "channels-last").cuda().requires_grad_()
    weights = currents(1, z.shape, "contiguous").cuda()
    s = neuron(z)
    spikes, expected = plain(neuron.dynamics, numbers(0.9, 0.5), z.cpu(), weights.cpu())
    assert torch.equal(s.cpu(), spikes)
    torch.testing.assert_close(torch.autograd.grad(s, z, weights)[0].cpu(), expected, rtol=1e-12, atol=1e-12)
