"""Quantities of each output, wherever a weight has its outputs: told by which weights move which current."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_near, loss_of
from tracegrad.core.equations.convolutions import ConvolutionGeometry, TransposedConvolutionGeometry
from tracegrad.core.equations.geometry import (
    EinsumGeometry,
    Geometry,
    LinearGeometry,
    MatmulGeometry,
    OneToOneGeometry,
)

T, B = 3, 4


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1


def einsum(equation: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: torch.einsum(equation, x, w)


def transposed(groups: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=groups)


PLANE = (1, 1), (1, 1), (1, 1)
# The function, one frame of its input, its weight, the dimension of the current's outputs, its geometry.
KINDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...], tuple[int, ...], int, Geometry]] = {
    "linear": (F.linear, (5,), (3, 5), -1, LinearGeometry()),
    "x @ W": (torch.matmul, (5,), (5, 3), -1, MatmulGeometry()),
    "einsum, outputs last": (einsum("bi,io->bo"), (5,), (5, 3), -1, EinsumGeometry("bi", "io", "bo", False)),
    "einsum, outputs first": (einsum("bi,oi->bo"), (5,), (3, 5), -1, EinsumGeometry("bi", "oi", "bo", False)),
    "convolution": (
        lambda x, w: F.conv2d(x, w, padding=1, groups=2),
        (4, 5, 4),
        (6, 2, 3, 3),
        1,
        ConvolutionGeometry(*PLANE, 2, (0, 0)),
    ),
    "transposed": (
        transposed(1),
        (4, 3, 4),
        (4, 3, 3, 3),
        1,
        TransposedConvolutionGeometry((2, 2), *PLANE[1:], 1, (1, 1)),
    ),
    "transposed, groups": (
        transposed(2),
        (4, 3, 4),
        (4, 3, 3, 3),
        1,
        TransposedConvolutionGeometry((2, 2), *PLANE[1:], 2, (1, 1)),
    ),
    "one to one": (torch.mul, (5,), (5,), -1, OneToOneGeometry()),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def of_each_output(kind: str) -> list[Tensor]:
    """For each output, which weights its currents depend on."""
    compute, frame, shape, outputs, _ = KINDS[kind]
    weight = uniform(*shape).requires_grad_()
    current = compute(uniform(2, *frame), weight).movedim(outputs, 0)
    return [torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] != 0 for each in current]


@every_kind
def test_outputs_come_first(kind: str) -> None:
    weight, layout = uniform(*KINDS[kind][2]), KINDS[kind][4].weight_layout
    for outputs, masks in ((layout.outputs_first(weight), of_each_output(kind)),):
        assert len(outputs) == len(masks)
        for found, mask in zip(outputs, masks, strict=True):
            assert sorted(found.flatten().tolist()) == sorted(weight[mask].tolist())
    assert torch.equal(layout.as_weight(layout.outputs_first(weight), weight.shape), weight)


@every_kind
def test_matrices_join_what_has_the_same_inputs(kind: str) -> None:
    """In a column of the matrix of a group stand weights that read the same input, in a row those of one output."""
    compute, frame, shape, outputs, geometry = KINDS[kind]
    weight, layout = uniform(*shape), geometry.weight_layout
    matrices = layout.matrices(weight)
    assert torch.equal(layout.from_matrices(matrices, weight.shape), weight)
    rows = matrices.flatten(0, 1)
    for row, mask in zip(rows, of_each_output(kind), strict=True):
        assert sorted(row.tolist()) == sorted(weight[mask].tolist())
    channel = outputs if outputs < 0 else outputs - 1
    inputs = frame[channel]
    seen = torch.zeros_like(weight)  # the number of the channel that each weight reads
    for number in range(inputs):
        x = torch.zeros(1, *frame, dtype=torch.float64)
        x.select(outputs, number).fill_(1.0)
        w = weight.clone().requires_grad_()
        (reads,) = torch.autograd.grad(compute(x, w).sum(), w)
        seen[reads != 0] = number + 1.0
    assert seen.all()
    for group in layout.matrices(seen):
        assert (group == group[0]).all()


class OneSynapse(nn.Module):
    """A weight that the model owns, from the data to a neuron."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.compute, _, shape, *_ = KINDS[kind]
        self.weight = nn.Parameter((uniform(*shape) - 0.4) * 0.9)
        self.neuron = tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.compute(x.flatten(0, 1), self.weight).unflatten(0, x.shape[:2]))


def run(kind: str, **options) -> tuple[Tensor, Tensor]:
    """The gradient, and R_hat."""
    model = OneSynapse(kind)
    x = (uniform(T, B, *KINDS[kind][1]) > 0.5).double()
    attachment = tg.attach(model, x, spiking_input=True, record=True, **options)
    loss_of(model(x)).backward()
    return model.weight.grad, attachment.relations["weight"]


one_matrix = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one to one"])


@one_matrix
@every_time
def test_the_largest_of_each_output_is_one(kind: str, time: str) -> None:
    """normalize="neuron"."""
    _, raw = run(kind, normalize="none", time=time)
    _, hat = run(kind, normalize="neuron", time=time)
    steps = zip(raw, hat, strict=True) if time == "per_step" else [(raw, hat)]
    for r, h in steps:
        for mask in of_each_output(kind):
            largest = r[mask].max()
            assert_near(h[mask], r[mask] / largest if largest else r[mask], 1e-12, "R_hat")


@one_matrix
@pytest.mark.parametrize("time", ["mean", "final"])
def test_the_gradient_of_each_output_keeps_its_length(kind: str, time: str) -> None:
    """scaling="norm_preserving"."""
    plain, _ = run(kind, alpha=0.0, time=time)
    scaled, hat = run(kind, alpha=0.5, time=time, scaling="norm_preserving")
    for mask in of_each_output(kind):
        before, factor = plain[mask], 0.5 + 0.5 * hat[mask]
        expected = before * factor / (before * factor).norm() * before.norm() if before.any() else before
        assert_near(scaled[mask], expected, 1e-12, "gradient")
    assert (scaled - plain).abs().max() > 1e-3


def test_ones_own_may_ask_for_outputs_first() -> None:
    seen: list[tuple[int, ...]] = []

    @tg.register_normalization("test-rows", outputs_first=True)
    def rows(relation: Tensor) -> Tensor:
        seen.append(relation.shape)
        return relation / relation.amax(tuple(range(1, relation.dim())), keepdim=True).clamp(min=1)

    @tg.register_scaling("test-outputs", outputs_first=True)
    def outputs(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
        seen.extend((gradient.shape, relation.shape))
        return gradient

    gradient, hat = run("transposed", normalize="test-rows", scaling="test-outputs", time="final")
    assert set(seen) == {(3, 4, 3, 3)}
    assert gradient.shape == hat.shape == (4, 3, 3, 3)
