"""The convolution of images that may be spikes, with its gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tracegrad.events import graph
from tracegrad.events.choice import mode
from tracegrad.events.dense import convolve, dense_current, dense_grad_input, dense_grad_weight, dense_gradients
from tracegrad.events.mixed_precision import current_type
from tracegrad.events.spikes import Spikes
from tracegrad.events.window import Window


def convolve_spikes(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, spikes: Spikes | None = None
) -> Tensor:
    """`torch.conv2d`, as autocast would have it, of images [N, C, H, W] that may be spikes.

    On a CPU, images whose values are all 0 or 1 are packed, one bit each; the event kernels take them where they pay
    (`choice`), and the bits are what is kept for the backward pass. Results are those of the dense way but for
    rounding; the weight's gradient is summed in float32 at least. It has no gradient of its gradients.

    Args:
        x: [N, C, H, W].
        weight: [outputs, C, kernel height, kernel width].
        bias: [outputs], or None.
        window: stride and padding.
        spikes: x, packed, where that is known already.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting() and x.device.type == "cpu":
        dtype = current_type(x)
        return graph.convolve_spikes(x, weight, bias, list(window.stride), list(window.padding), dtype)
    spikes = spikes or Spikes.read(x, mode(), current_type(x), weight.shape)
    if spikes is None or weight.device.type != "cpu":
        return convolve(x, weight, bias, window)
    return _SpikeConvolution.apply(x, weight, bias, window, spikes)  # pyright: ignore[reportReturnType]


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, spikes: Spikes) -> Tensor:
        dtype = current_type(x)
        current = spikes.current(weight, bias, window, dtype)
        if current is None:
            current = dense_current(x, weight, bias, window, dtype)
        ctx.save_for_backward(spikes.bits, weight)
        ctx.spikes, ctx.shape = spikes.facts, x.shape
        ctx.window, ctx.bias = window, None if bias is None else bias.dtype
        return current

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - of what is differentiable once
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        bits, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_input = grad_weight = None
        spikes = Spikes(bits, *ctx.spikes)
        if needs_weight:
            grad_weight = spikes.correlate(gradient, weight.shape, ctx.window)
        if needs_weight and grad_weight is None and needs_input:
            grad_input, grad_weight = dense_gradients(gradient, spikes.images, weight, ctx.window)
        elif needs_weight and grad_weight is None:
            grad_weight = dense_grad_weight(gradient, spikes.images, weight.shape, ctx.window)
        if needs_input and grad_input is None:
            grad_input = dense_grad_input(gradient, ctx.shape, weight, ctx.window, spikes.layout)
        grad_input = None if grad_input is None else grad_input.to(spikes.dtype)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = gradient.sum((0, 2, 3), dtype=ctx.bias) if needs_bias else None
        return grad_input, grad_weight, grad_bias, None, None
