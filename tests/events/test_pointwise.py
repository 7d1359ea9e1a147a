"""Pointwise convolutions that skip positions."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tracegrad as tg
from tracegrad.core.equations.convolutions import ConvolutionGeometry
from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.window import Window

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def uniform(*size: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(sum(size))) - 0.5


def sums(x: Tensor, weight: Tensor, post: Tensor, step: int) -> list[Tensor]:
    """The current and both gradients, written out in float64."""
    kernel, seen = weight.double()[:, :, 0, 0], x.double()[:, :, ::step, ::step]
    grad_x = torch.zeros_like(x, dtype=torch.float64)
    grad_x[:, :, ::step, ::step] = torch.einsum("nohw,oi->nihw", post.double(), kernel)
    grad_weight = torch.einsum("nohw,nihw->oi", post.double(), seen)[..., None, None]
    return [torch.einsum("nihw,oi->nohw", seen, kernel), grad_x, grad_weight]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("channels", [1, 4, 7, 15, 16])
def test_gradients(channels: int, step: int, layout: torch.memory_format) -> None:
    x, weight, side = uniform(64, channels, 8, 8), uniform(8, channels, 1, 1), len(range(0, 8, step))
    x, post = (each.contiguous(memory_format=layout) for each in (x, uniform(64, 8, side, side)))
    truth = sums(x, weight, post, step)
    geometry = ConvolutionGeometry((step, step), (0, 0), (1, 1), 1, (0, 0))
    found = [geometry.current(x, weight, None), *geometry.gradients(post, x, weight)]
    alone = [found[0], geometry.grad_input(post, x, weight), geometry.correlate(x, post, weight)]
    own_x, own_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    current = convolve_spikes(own_x, own_weight, None, Window((step, step)))
    current.backward(post)
    by_autograd = [current.detach(), own_x.grad, own_weight.grad]
    for results in (found, alone, by_autograd):
        for one, other in zip(results, truth, strict=True):
            assert one is not None
            torch.testing.assert_close(one.double(), other, atol=1e-4, rtol=1e-4)


class StridedPointwise(TorchDispatchMode):
    """Counts weight gradients of pointwise convolutions that skip positions and have few channels."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            weight, stride, wanted = args[2], args[4], args[-1]
            self.count += wanted[1] and weight.shape[2:].numel() == 1 and max(stride) > 1 and weight.shape[1] < 16
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("block", ["basic", "ms"])
def test_a_narrow_network_trains_without_those_that_corrupt_memory(block: str, alpha: float) -> None:
    network, images = tg.models.resnet(blocks=(1, 1, 1), width=4, block=block), torch.rand(2, 3, 16, 16)
    if alpha:
        tg.attach(network, images, alpha=alpha)
    with StridedPointwise() as seen:
        network(images).square().sum().backward()
    assert seen.count == 0
