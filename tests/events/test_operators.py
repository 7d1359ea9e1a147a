"""The kernels, of each instruction set, against loops in float64."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import loops
import pytest
import torch
from cases import AVAILABLE, Case, cases
from hypothesis import given, settings
from torch import Tensor

from tracegrad.events import operators, twins
from tracegrad.events.onto import Onto
from tracegrad.events.spikes import Spikes, correlate_ends

each_set = pytest.mark.parametrize("instruction_set", AVAILABLE)
many = settings(max_examples=40, deadline=None)
HALF = 2.0**-8
"""What rounding to bfloat16 changes at most, as a part of the number."""


@contextmanager
def threads(number: int):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_one_and_two_threads(call: Callable[[], Tensor | None]) -> Tensor:
    """The result, which is the same to the bit with one thread, with two, and once more."""
    results = []
    for number in (1, 2, 2):
        with threads(number):
            result = call()
        assert result is not None
        results.append(result)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])
    return results[0]


def assert_near(found: Tensor, truth: Tensor, magnitude: Tensor, tolerance: float) -> None:
    """Within a part of the sum of magnitudes of what was added up."""
    assert found.shape == truth.shape
    assert bool(((found.double() - truth).abs() <= tolerance * magnitude + 1e-30).all())


def packed(case: Case, instruction_set: str) -> Tensor:
    found = operators.pack(case.x, instruction_set)
    assert found is not None
    return found[0]


@each_set
@given(case=cases())
@many
def test_current_in_float32(instruction_set: str, case: Case) -> None:
    bits = packed(case, instruction_set)
    found = with_one_and_two_threads(
        lambda: operators.convolve(bits, case.weight, case.bias, case.window, torch.float32, instruction_set)
    )
    truth = loops.current(case.x, case.weight, case.bias, case.window)
    size = None if case.bias is None else case.bias.abs()
    assert_near(found, truth, loops.current(case.x, case.weight.abs(), size, case.window), 1e-6)


@each_set
@given(case=cases(torch.bfloat16))
@many
def test_current_in_bfloat16(instruction_set: str, case: Case) -> None:
    """Each weight, and the result, is rounded once."""
    bits = packed(case, instruction_set)
    found = with_one_and_two_threads(
        lambda: operators.convolve(bits, case.weight, case.bias, case.window, torch.bfloat16, instruction_set)
    )
    truth = loops.current(case.x, case.weight, case.bias, case.window)
    size = None if case.bias is None else case.bias.abs()
    assert_near(found, truth, loops.current(case.x, case.weight.abs(), size, case.window), 2.01 * HALF)


@each_set
@given(case=cases(torch.bfloat16))
@many
def test_current_of_weights_in_bfloat16(instruction_set: str, case: Case) -> None:
    """Only the result is rounded, as these weights are what they are."""
    bits, weight = packed(case, instruction_set), case.weight.bfloat16()
    found = operators.convolve(bits, weight, None, case.window, torch.bfloat16, instruction_set)
    truth = loops.current(case.x, weight, None, case.window)
    assert found is not None
    assert_near(found, truth, truth.abs() + 1e-4 * loops.current(case.x, weight.abs(), None, case.window), 1.01 * HALF)


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_correlation(instruction_set: str, dtype: torch.dtype) -> None:
    """In float32, of gradients in bfloat16 too: nothing is rounded but the sums."""

    @given(case=cases(dtype))
    @many
    def check(case: Case) -> None:
        bits, size = packed(case, instruction_set), case.weight.shape
        found = with_one_and_two_threads(
            lambda: operators.correlate(bits, case.post, size, case.window, instruction_set=instruction_set)
        )
        assert found.dtype == torch.float32
        truth = loops.correlation(case.x, case.post, size, case.window)
        assert_near(found, truth, loops.correlation(case.x, case.post.abs(), size, case.window), 1e-6)

    check()


@each_set
def test_a_layer_of_the_papers_network_is_as_precise_as_the_dense_way(instruction_set: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(4, 64, 16, 16, generator=generator) < 0.165).bfloat16()
    weight, post = torch.randn(64, 64, 3, 3, generator=generator), torch.randn(4, 64, 16, 16, generator=generator)
    window = operators.Window(padding=(1, 1))
    bits = packed(Case(x, weight, None, post, window), instruction_set)
    truth = loops.current(x, weight, None, window)
    found = operators.convolve(bits, weight, None, window, torch.bfloat16, instruction_set)
    assert found is not None
    dense = torch.conv2d(x, weight.bfloat16(), None, 1, 1)
    assert (found - truth).norm() <= 1.01 * (dense - truth).norm()
    post = post.bfloat16()
    truth = loops.correlation(x, post, weight.shape, window)
    found = operators.correlate(bits, post, weight.shape, window, instruction_set=instruction_set)
    assert found is not None
    assert (found - truth).norm() <= 1e-6 * truth.norm()


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing(instruction_set: str, dtype: torch.dtype) -> None:
    @given(case=cases(dtype))
    @many
    def check(case: Case) -> None:
        found, expected = operators.pack(case.x, instruction_set), twins.pack(case.x)
        assert found is not None
        assert expected is not None
        assert torch.equal(found[0], expected[0])
        assert found[1] == expected[1] == int(case.x.double().sum())
        channels = case.x.shape[1]
        assert torch.equal(operators.unpack(found[0], channels, dtype, instruction_set), case.x)
        assert torch.equal(twins.unpack(found[0], channels, dtype), case.x)

    check()


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("value", [-0.0, 0.5, 2.0, -1.0, 1e-40, float("nan"), float("inf"), 1.0078125, 0.99609375])
@pytest.mark.parametrize("channels", [1, 16, 65])
def test_what_is_neither_0_nor_1_is_not_packed(
    instruction_set: str, dtype: torch.dtype, layout: torch.memory_format, value: float, channels: int
) -> None:
    for place in ((0, 0, 0, 0), (1, channels - 1, 4, 6), (0, channels // 2, 2, 3)):
        x = torch.ones(2, channels, 5, 7, dtype=dtype).contiguous(memory_format=layout)
        assert operators.pack(x, instruction_set) is not None
        x[place] = value
        assert operators.pack(x, instruction_set) is None
        assert twins.pack(x) is None


@each_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("outputs", [1, 16, 33, 64])
def test_what_is_not_finite_is_left_to_the_dense_way(
    instruction_set: str, dtype: torch.dtype, value: float, outputs: int
) -> None:
    x, weight, post = torch.zeros(2, 3, 5, 7), torch.zeros(outputs, 3, 3, 3), torch.zeros(2, outputs, 5, 7)
    window = operators.Window(padding=(1, 1))
    bits = packed(Case(x, weight, None, post, window), instruction_set)
    for place in (0, -1):
        broken = weight.clone()
        broken.view(-1)[place] = value
        assert operators.convolve(bits, broken, None, window, dtype, instruction_set) is None
        broken = post.to(dtype).contiguous(memory_format=torch.channels_last).clone()
        broken[place, place, place, place] = value
        assert operators.correlate(bits, broken, weight.shape, window, instruction_set=instruction_set) is None


@given(case=cases())
@many
def test_the_twins(case: Case) -> None:
    bits = twins.pack(case.x.double())
    assert bits is not None
    weight, bias = case.weight.double(), None if case.bias is None else case.bias.double()
    current = twins.convolve(bits[0], weight, bias, case.window, torch.float64)
    correlation = twins.correlate(bits[0], case.post.double(), weight.shape, case.window)
    assert current is not None
    assert correlation is not None
    torch.testing.assert_close(current, loops.current(case.x, weight, bias, case.window))
    torch.testing.assert_close(correlation, loops.correlation(case.x, case.post, weight.shape, case.window))


@each_set
@pytest.mark.parametrize("channels_last", [True, False])
def test_correlation_added_onto_another_one(instruction_set: str, channels_last: bool) -> None:
    """With its ends as they are and exchanged; `previous` may lie in any order."""

    @given(case=cases())
    @many
    def check(case: Case) -> None:
        bits, size = packed(case, instruction_set), case.weight.shape
        correlation = loops.correlation(case.x, case.post, size, case.window)
        bound = loops.correlation(case.x, case.post.abs(), size, case.window)
        for turned in (False, True):
            truth, magnitude = (x.flip(2, 3).transpose(0, 1) if turned else x for x in (correlation, bound))
            previous = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
            if channels_last:
                previous = previous.contiguous(memory_format=torch.channels_last)
            onto = Onto(scale=0.5, factor=-3.0, previous=previous)
            arguments = case.post, size, case.window, onto, turned
            found = operators.correlate(bits, *arguments, instruction_set=instruction_set)
            exact = onto._replace(previous=previous.double())
            twin = twins.correlate(bits, case.post.double(), size, case.window, exact, turned)
            assert found is not None
            assert twin is not None
            expected = 0.5 * truth - 3 * previous.double()
            assert_near(found, expected, 0.5 * magnitude + 3 * previous.double().abs(), 2e-6)
            assert_near(twin, expected, magnitude + previous.double().abs(), 1e-12)

    check()


@pytest.mark.parametrize("exchanged", [True, False])
def test_correlation_over_the_spikes_of_either_end(monkeypatch: pytest.MonkeyPatch, exchanged: bool) -> None:
    """Also with strides, which become gaps between the post-synaptic spikes."""
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")

    @given(case=cases())
    @many
    def check(case: Case) -> None:
        pre = torch.randn(case.x.shape, generator=torch.Generator().manual_seed(0)) if exchanged else case.x
        post = (case.post > 0.5).float() if exchanged else case.post
        read = partial(Spikes.read, mode="always", dtype=pre.dtype)
        spikes = (None, read(post)) if exchanged else (read(pre), None)
        found = correlate_ends(pre, post, spikes, case.weight.shape, case.window)
        can_be_turned = all(
            kernel > pad for kernel, pad in zip(case.weight.shape[2:], case.window.padding, strict=True)
        )
        if exchanged and not can_be_turned:
            assert found is None
            return
        assert found is not None
        truth = loops.correlation(pre, post, case.weight.shape, case.window)
        assert_near(found, truth, loops.correlation(pre.abs(), post.abs(), case.weight.shape, case.window), 1e-6)

    check()
