"""The correlation of Eq. 6 against a loop over kernel positions, over random shapes, and its refusals."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reference
import tracegrad as tg

KINDS = {1: nn.Conv1d, 2: nn.Conv2d}
quick = settings(deadline=None, max_examples=100)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_matches_the_loop(pre: Tensor, post: Tensor, synapse: nn.Module) -> None:
    relation, loop = tg.correlate(pre, post, synapse), reference.correlate(pre, post, synapse)
    assert relation.shape == synapse.weight.shape
    assert relation.dtype == torch.float64
    assert (relation - loop).abs().max() <= 1e-12 * loop.abs().max().clamp(min=1)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution of any geometry and the shape of an input that it takes."""
    dimensions = draw(st.sampled_from([1, 2]))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation = each(1, 4), each(1, 3)
    padding = draw(st.sampled_from(["same", "valid", "given"]))
    stride = (1,) * dimensions if padding == "same" else each(1, 3)
    if padding == "given":
        padding = each(0, 3)
    synapse = KINDS[dimensions](inputs, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return synapse.double(), (draw(st.integers(1, 3)), inputs, *each(1, 9))


@quick
@given(convolutions(), st.integers(0, 10**6))
def test_convolutions_match_the_loop(drawn: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
    synapse, shape = drawn
    pre = random(*shape, seed=seed)
    try:
        post = random(*synapse(pre).shape, seed=seed + 1)
    except RuntimeError:  # the kernel is larger than the padded input
        assume(False)
    assert_matches_the_loop(pre, post, synapse)


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_linear_layers_match_the_loop(before: list[int], inputs: int, outputs: int, bias: bool) -> None:
    synapse = nn.Linear(inputs, outputs, bias=bias).double()
    assert_matches_the_loop(random(*before, inputs, seed=1), random(*before, outputs, seed=2), synapse)


def test_convolution_by_hand() -> None:
    synapse = nn.Conv1d(1, 1, 3, padding=1).double()
    pre = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64)
    post = torch.tensor([[[0.0, 1.0, 10.0]]], dtype=torch.float64)
    # position k sees the input k - 1 places away: 1*1 + 10*2, 1*2 + 10*3, 1*3 + 10*0
    assert tg.correlate(pre, post, synapse).tolist() == [[[21.0, 32.0, 3.0]]]


def test_linear_is_the_outer_product() -> None:
    pre, post = random(1, 3, seed=1), random(1, 2, seed=2)
    relation = tg.correlate(pre, post, nn.Linear(3, 2).double())
    torch.testing.assert_close(relation, torch.outer(post[0], pre[0]), rtol=1e-15, atol=0)


def test_takes_only_the_geometry_of_the_synapse() -> None:
    pre, post, synapse = random(2, 3, 5, 5), random(2, 4, 5, 5), nn.Conv2d(3, 4, 3, padding=1).double()
    before = tg.correlate(pre, post, synapse)
    nn.init.zeros_(synapse.weight)
    after = tg.correlate(pre, post, synapse)
    assert torch.equal(before, after)
    assert not after.requires_grad


CONV2D = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)  # [5, 4, 9, 7] -> [5, 6, 5, 4]
CONV1D = nn.Conv1d(4, 6, 3)  # [5, 4, 9] -> [5, 6, 7]
LINEAR = nn.Linear(4, 6)
WRONG = {
    "conv2d pre channels": ((5, 3, 9, 7), (5, 6, 5, 4), CONV2D, "3"),
    "conv2d post channels": ((5, 4, 9, 7), (5, 8, 5, 4), CONV2D, "8"),
    "conv2d batch": ((5, 4, 9, 7), (2, 6, 5, 4), CONV2D, "2"),
    "conv2d output size": ((5, 4, 9, 7), (5, 6, 9, 7), CONV2D, "9, 7"),
    "conv2d output size that padding would hide": ((5, 4, 9, 7), (5, 6, 5, 3), CONV2D, "5, 3"),
    "conv2d pre dimensions": ((5, 4, 9), (5, 6, 5, 4), CONV2D, "5, 4, 9"),
    "conv2d post dimensions": ((5, 4, 9, 7), (5, 6, 5), CONV2D, "5, 6, 5"),
    "conv2d time not folded": ((2, 5, 4, 9, 7), (2, 5, 6, 5, 4), CONV2D, "2, 5, 4, 9, 7"),
    "conv1d output size": ((5, 4, 9), (5, 6, 9), CONV1D, "9"),
    "conv1d input shorter than the kernel": ((5, 4, 2), (5, 6, 1), CONV1D, "2"),
    "linear pre features": ((5, 3), (5, 6), LINEAR, "3"),
    "linear post features": ((5, 4), (5, 7), LINEAR, "7"),
    "linear batch": ((5, 4), (2, 6), LINEAR, "2"),
    "linear tokens": ((5, 3, 4), (5, 2, 6), LINEAR, "2"),
    "linear swapped tokens": ((5, 2, 4), (2, 5, 6), LINEAR, "2, 5, 6"),
}


@pytest.mark.parametrize(("pre", "post", "synapse", "named"), WRONG.values(), ids=WRONG)
def test_wrong_shapes_are_refused_in_one_line(
    pre: tuple[int, ...], post: tuple[int, ...], synapse: nn.Module, named: str
) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        tg.correlate(torch.ones(pre), torch.ones(post), synapse)
    assert "\n" not in str(refused.value)


def test_refusal_names_both_what_came_and_what_would_be_right() -> None:
    with pytest.raises(ValueError, match=r"6, 9, 7.*6, 5, 4|6, 5, 4.*6, 9, 7"):
        tg.correlate(torch.ones(5, 4, 9, 7), torch.ones(5, 6, 9, 7), CONV2D)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.Identity(), None])
def test_other_layers_are_refused(layer: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"Linear|Conv") as refused:
        tg.correlate(torch.ones(5, 4, 3, 3), torch.ones(5, 4, 3, 3), layer)
    assert "\n" not in str(refused.value)


def test_two_types_of_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one floating-point type, not torch.float32 and torch.float64"):
        tg.correlate(torch.ones(2, 3), torch.ones(2, 4).double(), nn.Linear(3, 4))


def test_circular_padding_is_refused_by_name() -> None:
    synapse = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")
    with pytest.raises(ValueError, match="circular"):
        tg.correlate(torch.ones(1, 4, 5, 5), torch.ones(1, 6, 5, 5), synapse)
