"""Autocast to bfloat16 on processors with it and without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tracegrad as tg
from tracegrad.core.equations.convolutions import ConvolutionGeometry, TransposedConvolutionGeometry
from tracegrad.core.equations.geometry import EinsumGeometry, Geometry, LinearGeometry, MatmulGeometry
from tracegrad.events import mixed_precision

HALF_A_STEP = 2.0**-8
"""The relative error of rounding to bfloat16."""


@pytest.fixture(params=[True, False])
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(mixed_precision, "CPU_HAS_BFLOAT16", request.param)
    return request.param


class Convolutions(TorchDispatchMode):
    """The types of what is convolved, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            self.types.append(args[0].dtype)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("events", ["0", "auto"])
def test_a_training_step(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, events: str, alpha: float) -> None:
    """PyTorch's convolutions of bfloat16 take ten times as long as others where a processor lacks it."""
    monkeypatch.setenv("TRACEGRAD_EVENTS", events)
    network, images = tg.models.resnet(blocks=(1, 1), width=16), torch.rand(2, 3, 16, 16)
    if alpha:
        tg.attach(network, images, alpha=alpha)
    with Convolutions() as seen:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(images)
        outputs.float().square().sum().backward()
    assert {*seen.types} == {torch.bfloat16 if has_bfloat16 else torch.float32}
    assert outputs.dtype == torch.bfloat16


GEOMETRIES: dict[str, tuple[Geometry, tuple[int, ...], tuple[int, ...]]] = {
    "convolution": (ConvolutionGeometry((2, 1), (1, 0), (1, 1), 1, (0, 0)), (3, 8, 9, 7), (6, 8, 3, 3)),
    "transposed": (TransposedConvolutionGeometry((2,), (1,), (1,), 1, (0,)), (3, 8, 9), (8, 6, 3)),
    "linear": (LinearGeometry(), (3, 5, 40), (6, 40)),
    "matmul": (MatmulGeometry(), (3, 5, 40), (40, 6)),
    "einsum": (EinsumGeometry("abc", "dc", "abd", weight_first=False), (3, 5, 40), (6, 40)),
}


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_sums_are_rounded_once(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(mixed_precision, "CPU_HAS_BFLOAT16", False)
    geometry, size, weight_size = GEOMETRIES[kind]
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(of, generator=generator).bfloat16() for of in (size, weight_size))
    post = torch.randn(geometry.current(x, weight, None).shape, generator=generator).bfloat16()
    operations: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
        lambda x, weight, post: geometry.current(x, weight, None),
        lambda x, weight, post: geometry.grad_input(post, x, weight),
        lambda x, weight, post: geometry.correlate(x, post, weight),
    ]
    for operation in operations:
        found, truth = operation(x, weight, post), operation(x.double(), weight.double(), post.double())
        sizes = operation(x.double().abs(), weight.double().abs(), post.double().abs())
        assert found.dtype == torch.bfloat16
        assert ((found.double() - truth).abs() <= HALF_A_STEP * truth.abs() + 1e-6 * sizes).all()


def test_autocast_casts_factors_and_a_bias_as_it_does_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "CPU_HAS_BFLOAT16", False)
    layer, x = nn.Linear(40, 6), torch.rand(3, 40)
    with torch.autocast("cpu", torch.bfloat16):
        found = LinearGeometry().current(x, layer.weight, layer.bias)
    with torch.no_grad():
        truth = x.bfloat16().double() @ layer.weight.bfloat16().double().t() + layer.bias.bfloat16().double()
    assert found.dtype == torch.bfloat16
    assert ((found.double() - truth).abs() <= HALF_A_STEP * truth.abs() + 1e-6).all()
    assert torch.equal(LinearGeometry().current(x, layer.weight, layer.bias), layer(x)), "without autocast as ever"
