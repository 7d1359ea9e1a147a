"""The dense way: a convolution and its gradients; that of the input always, as surrogate gradients are dense."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tracegrad.events.mixed_precision import is_slow, sums_products
from tracegrad.events.pointwise import seen, skips
from tracegrad.events.window import Window


class ConvolutionOptions(NamedTuple):
    """What a convolution does, in the words of `torch.nn.functional`; one number for each position dimension."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool
    output_padding: Sequence[int]
    groups: int


@sums_products
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The current of images [N, C, H, W], as autocast would have it."""
    if skips(x, weight, *window):
        return torch.conv2d(seen(x, window.stride), weight, bias)
    return torch.conv2d(x, weight, bias, window.stride, window.padding)


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, options: ConvolutionOptions, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of x and weight, as far as they are `wanted`; autocast leaves them alone.

    Args:
        gradient: of the current.
        x: what is convolved; its values are not read for its own gradient alone.
        weight: its values are not read for its own gradient alone.
        options: of any convolution.
        wanted: which of the two; what is found for the other has no meaning.
    """
    of_x, of_weight = wanted
    if of_weight and not options.transposed and skips(x, weight, options.stride, options.padding):
        grad_x = _backward(gradient, x, weight, options, (True, False))[0] if of_x else x
        kept = options._replace(stride=[1] * len(options.stride))
        return grad_x, _backward(gradient, seen(x, options.stride), weight, kept, (False, True))[1]
    return _backward(gradient, x, weight, options, wanted)


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
    weight = weight.to(gradient.dtype)
    found, _ = convolution_backward(gradient, unread, weight, _options(window), (True, False))
    return found.contiguous(memory_format=layout)


def dense_grad_weight(gradient: Tensor, images: Tensor, size: torch.Size, window: Window) -> Tensor:
    """The gradient of a weight of this size, in the type of the current's."""
    arguments = images.to(gradient.dtype), gradient.new_empty(size)
    return convolution_backward(gradient, *arguments, _options(window), (False, True))[1]


def dense_gradients(gradient: Tensor, images: Tensor, weight: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Those of images and weight, by one call, which reads the current's gradient once."""
    arguments = images.to(gradient.dtype), weight.to(gradient.dtype)
    return convolution_backward(gradient, *arguments, _options(window), (True, True))


def _options(window: Window) -> ConvolutionOptions:
    return ConvolutionOptions(window.stride, window.padding, (1, 1), False, (0, 0), 1)


def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, options: ConvolutionOptions, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    backward, mask = torch.ops.aten.convolution_backward, [*wanted, False]
    if not is_slow(gradient.dtype, gradient):
        return backward(gradient, x, weight, None, *options, mask)[:2]
    x, weight = (  # what is not read needs no copy
        end.float() if is_read else torch.empty_like(end, dtype=torch.float32)
        for end, is_read in ((x, wanted[1]), (weight, wanted[0]))
    )
    found = backward(gradient.float(), x, weight, None, *options, mask)
    return tree_map_only(Tensor, Tensor.bfloat16, found[:2])
