"""The convolution of images that may be spikes, with its gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tracegrad.events import graph
from tracegrad.events.choice import Mode, is_possible, mode
from tracegrad.events.library import library, machine_instruction_set
from tracegrad.events.spikes import Spikes, dense_grad_input
from tracegrad.events.window import Window


def read_spikes(x: Tensor) -> Spikes | None:
    """Packs images for several calls of `convolve_spikes`; None where each has to see for itself."""
    known = (
        type(x) is Tensor and x.dtype in (torch.float32, torch.bfloat16) and x.device.type == "cpu" and x.numel() > 0
    )
    if torch.compiler.is_compiling() or not known or mode() == "off" or library(machine_instruction_set()) is None:
        return None
    return Spikes.read(x)


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
        spikes: `read_spikes(x)`, where that is known already.
    """
    dtype = torch.get_autocast_dtype("cpu") if _autocasts(x) else x.dtype
    if torch.compiler.is_compiling():
        if x.device.type != "cpu":
            return torch.conv2d(x, weight, bias, window.stride, window.padding)
        return graph.convolve_spikes(x, weight, bias, list(window.stride), list(window.padding), dtype)
    chosen = mode()
    if not is_possible(x, weight, dtype, window, chosen):
        return torch.conv2d(x, weight, bias, window.stride, window.padding)
    return _SpikeConvolution.apply(x, weight, bias, window, dtype, chosen, spikes or Spikes.read(x))  # pyright: ignore[reportReturnType]


def _autocasts(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        window: Window,
        dtype: torch.dtype,
        mode: Mode,
        spikes: Spikes,
    ) -> Tensor:
        current = spikes.current(weight, bias, window, dtype, mode)
        if current is None:
            cast = None if bias is None else bias.to(dtype)
            current = torch.conv2d(x.to(dtype), weight.to(dtype), cast, window.stride, window.padding)
        ctx.save_for_backward(spikes.kept, weight)
        ctx.spikes, ctx.shape = (spikes.channels, spikes.dtype, spikes.rate), x.shape
        ctx.window, ctx.mode, ctx.bias = window, mode, None if bias is None else bias.dtype
        return current

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - of what is differentiable once
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        kept, weight = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = dense_grad_input(gradient, ctx.shape, weight, ctx.window).to(ctx.spikes[1])
        if ctx.needs_input_grad[1]:
            grad_weight = (
                Spikes(kept, *ctx.spikes).correlation(gradient, weight.shape, ctx.window, ctx.mode).to(weight.dtype)
            )
        if ctx.needs_input_grad[2]:
            grad_bias = gradient.sum((0, 2, 3), dtype=ctx.bias)
        return grad_input, grad_weight, grad_bias, None, None, None, None
