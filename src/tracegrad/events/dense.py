"""The dense way: a convolution and its gradients; that of the input always, as surrogate gradients are dense."""

import torch
from torch import Tensor

from tracegrad.events.mixed_precision import convolution_backward, sums_products
from tracegrad.events.window import Window


@sums_products
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The current of images [N, C, H, W], as autocast would have it."""
    return torch.conv2d(x, weight, bias, window.stride, window.padding)


def dense_current(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype) -> Tensor:
    """The current of images [N, C, H, W], computed as `dtype`."""
    cast = None if bias is None else bias.to(dtype)
    return convolve(x.to(dtype), weight.to(dtype), cast, window)


def dense_grad_input(
    gradient: Tensor, images: torch.Size, weight: Tensor, window: Window, layout: torch.memory_format
) -> Tensor:
    """The gradient of images [N, C, H, W], given that of the current, in whose type it is, and in the images' layout.

    Batch norms, which often come next, take ten times as long where layouts differ.
    """
    # Only the shape and layout of the images are read: this memory is never touched.
    unread = (
        gradient.new_empty(0).expand(0)
        if 0 in images
        else torch.empty(images, dtype=gradient.dtype, memory_format=layout)
    )
    found = _backward(gradient, unread, weight.to(gradient.dtype), window, [True, False, False])[0]
    return found.contiguous(memory_format=layout)


def dense_grad_weight(gradient: Tensor, images: Tensor, size: torch.Size, window: Window) -> Tensor:
    """The gradient of a weight of this size, in the type of the current's."""
    return _backward(gradient, images.to(gradient.dtype), gradient.new_empty(size), window, [False, True, False])[1]


def dense_gradients(gradient: Tensor, images: Tensor, weight: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Those of images and weight, by one call, which reads the current's gradient once."""
    arguments = images.to(gradient.dtype), weight.to(gradient.dtype)
    grad_images, grad_weight, _ = _backward(gradient, *arguments, window, [True, True, False])
    return grad_images, grad_weight


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, window: Window, wanted: list[bool]
) -> tuple[Tensor, ...]:
    operation = window.stride, window.padding, (1, 1), False, (0, 0), 1
    return convolution_backward(gradient, images, weight, operation, wanted)
