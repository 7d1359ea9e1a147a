"""The convolution of spikes as operators of PyTorch's, which `torch.compile` takes into its graphs as they are.

What a graph keeps for its backward pass is settled before there are values: here the images themselves, not their bits.
"""

from typing import Any

import torch
from torch import Tensor

from tracegrad.events.choice import mode
from tracegrad.events.dense import dense_current, dense_grad_input, dense_grad_weight
from tracegrad.events.spikes import Spikes
from tracegrad.events.window import Window, current_layout, layout_of


@torch.library.custom_op("tracegrad::convolve_spikes", mutates_args=())
def convolve_spikes(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dtype: torch.dtype
) -> Tensor:
    """`convolution.convolve_spikes` to `dtype`."""
    window, spikes = _window(stride, padding), Spikes.read(x, mode(), dtype, weight.shape)
    current = None if spikes is None else spikes.current(weight, bias, window, dtype)
    if current is None:
        current = dense_current(x, weight, bias, window, dtype)
    return current.contiguous(memory_format=current_layout(layout_of(x), weight))


@torch.library.custom_op("tracegrad::correlate_spikes", mutates_args=())
def correlate_spikes(x: Tensor, post: Tensor, size: list[int], stride: list[int], padding: list[int]) -> Tensor:
    """`Spikes.correlate`, or the same the dense way, in float32 at least and channels last in memory."""
    window, shape = _window(stride, padding), torch.Size(size)
    spikes = Spikes.read(x, mode(), post.dtype, shape)
    found = None if spikes is None else spikes.correlate(post, shape, window)
    found = dense_grad_weight(post, x, shape, window) if found is None else found
    return found.to(_precise(post)).contiguous(memory_format=torch.channels_last)


@convolve_spikes.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dtype: torch.dtype
) -> Tensor:
    size = _window(stride, padding).output_size(x.shape, weight.shape)
    return x.new_empty(size, dtype=dtype).contiguous(memory_format=current_layout(layout_of(x), weight))


@correlate_spikes.register_fake
def _(x: Tensor, post: Tensor, size: list[int], stride: list[int], padding: list[int]) -> Tensor:
    return post.new_empty(size, dtype=_precise(post)).contiguous(memory_format=torch.channels_last)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, stride, padding, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.stride, ctx.padding, ctx.bias = stride, padding, None if bias is None else bias.dtype


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    window = _window(ctx.stride, ctx.padding)
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_x = grad_weight = None
    if needs_x:
        grad_x = dense_grad_input(gradient, x.shape, weight, window, layout_of(x)).to(x.dtype)
    if needs_weight:
        found = correlate_spikes(x, gradient, list(weight.shape), ctx.stride, ctx.padding)
        grad_weight = found.to(weight.dtype)
    grad_bias = gradient.sum((0, 2, 3), dtype=ctx.bias) if needs_bias else None
    return grad_x, grad_weight, grad_bias, None, None, None


convolve_spikes.register_autograd(_backward, setup_context=_keep)


def _window(stride: list[int], padding: list[int]) -> Window:
    return Window((stride[0], stride[1]), (padding[0], padding[1]))


def _precise(post: Tensor) -> torch.dtype:
    return torch.promote_types(post.dtype, torch.float32)
