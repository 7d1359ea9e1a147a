"""What a synapse is given, packed if it is spikes: its current and correlations, by events where they pay."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.events import operators, twins
from tracegrad.events.choice import Mode, pays
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

    def sum_over(self, post: Tensor, size: torch.Size, window: Window, mode: Mode) -> Tensor | None:
        """R[o,i,k] = sum over n and positions p of post[n,o,p] * x[n,i, p * stride + k - padding], as `current`."""
        if self.rate is None or not pays("weight", self.rate, size, post.dtype, mode):
            return None
        way = twins if post.dtype == torch.float64 else operators
        return way.correlate(self.kept, post, size, window)

    def correlation(self, post: Tensor, size: torch.Size, window: Window, mode: Mode) -> Tensor:
        """`sum_over`, or the same the dense way."""
        found = self.sum_over(post, size, window, mode)
        if found is not None:
            return found
        weight = post.new_empty(size)
        return _dense_backward(post, self.images.to(post.dtype), weight, window, [False, True, False])[1]


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
