"""Synapses on spikes: their currents and gradients, by the event kernels where these pay, else the dense way."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tracegrad.events import operators, twins
from tracegrad.events.choice import Mode, is_possible, mode, pays
from tracegrad.events.window import Window


@dataclass(frozen=True)
class Spikes:
    """What a synapse was given: packed if it was spikes, else as it is.

    Attributes:
        kept: bits [N, H, W, words], or the images [N, C, H, W] themselves.
        channels: C.
        dtype: of the images.
        rate: the part of the inputs that fired; None where they are kept as they are.
    """

    kept: Tensor
    channels: int
    dtype: torch.dtype
    rate: float | None

    @classmethod
    def read(cls, x: Tensor) -> "Spikes":
        """Packs images [N, C, H, W], if all that is in them is 0 or 1."""
        packed = (twins if x.dtype == torch.float64 else operators).pack(x.detach())
        if packed is None:
            return cls(x, x.shape[1], x.dtype, None)
        return cls(packed[0], x.shape[1], x.dtype, packed[1] / x.numel())

    @property
    def images(self) -> Tensor:
        """[N, C, H, W]."""
        if self.rate is None:
            return self.kept
        return (twins if self.dtype == torch.float64 else operators).unpack(self.kept, self.channels, self.dtype)

    def current(
        self, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype, mode: Mode
    ) -> Tensor | None:
        """The current, by the event kernels if they pay; else None."""
        if self.rate is None or not pays("current", self.rate, weight.shape, dtype, mode):
            return None
        way = twins if dtype == torch.float64 else operators
        return way.convolve(self.kept, weight, bias, window, dtype)

    def correlation(self, post: Tensor, size: torch.Size, window: Window, mode: Mode) -> Tensor:
        """R[o,i,k] = sum over n and positions p of post[n,o,p] * x[n,i, p * stride + k - padding], either way."""
        if self.rate is not None and pays("weight", self.rate, size, post.dtype, mode):
            way = twins if post.dtype == torch.float64 else operators
            found = way.correlate(self.kept, post, size, window)
            if found is not None:
                return found
        weight = post.new_empty(size)
        return _dense_backward(post, self.images.to(post.dtype), weight, window, [False, True, False])[1]


def convolve_spikes(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """`torch.conv2d`, as autocast would have it, of images [N, C, H, W] that may be spikes.

    On a CPU, images whose values are all 0 or 1 are packed, one bit each; the event kernels take them where they pay
    (`choice`), and the bits are what is kept for the backward pass. Results are those of the dense way but for
    rounding; the weight's gradient is summed, and returned, in float32 at least. It has no gradient of its gradients.
    """
    dtype = torch.get_autocast_dtype("cpu") if _autocasts(x) else x.dtype
    chosen = mode()
    if not is_possible(x, weight, dtype, window, chosen):
        return torch.conv2d(x, weight, bias, window.stride, window.padding)
    return _SpikeConvolution.apply(x, weight, bias, window, dtype, chosen)  # pyright: ignore[reportReturnType]


def _autocasts(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype, mode: Mode
    ) -> Tensor:
        spikes = Spikes.read(x)
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
        return grad_input, grad_weight, grad_bias, None, None, None


def dense_grad_input(gradient: Tensor, images: torch.Size, weight: Tensor, window: Window) -> Tensor:
    """The gradient of images of this shape; surrogate gradients are dense, so that events would not help."""
    # Only the shape and layout of the images are read: this memory is never touched.
    unread = (
        gradient.new_empty(0).expand(0)
        if 0 in images
        else torch.empty(images, dtype=gradient.dtype, memory_format=torch.channels_last)
    )
    return _dense_backward(gradient, unread, weight.to(gradient.dtype), window, [True, False, False])[0]


def _dense_backward(
    gradient: Tensor, images: Tensor, weight: Tensor, window: Window, wanted: list[bool]
) -> tuple[Tensor, ...]:
    operation = window.stride, window.padding, (1, 1), False, (0, 0), 1
    return torch.ops.aten.convolution_backward(gradient, images, weight, None, *operation, wanted)
