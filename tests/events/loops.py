"""What the operators compute, in float64 and without a convolution of PyTorch's: loops over the kernel's positions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tracegrad.events.window import Window


def current(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    result = x.new_zeros(window.output_size(x.shape, weight.shape), dtype=torch.float64)
    for ky, kx, seen in _seen(x, weight.shape, window):
        result += torch.einsum("nihw,oi->nohw", seen, weight[:, :, ky, kx].double())
    return result if bias is None else result + bias.double()[:, None, None]


def correlation(x: Tensor, post: Tensor, size: torch.Size, window: Window) -> Tensor:
    result = torch.zeros(size, dtype=torch.float64)
    for ky, kx, seen in _seen(x, size, window):
        result[:, :, ky, kx] = torch.einsum("nihw,nohw->oi", seen, post.double())
    return result


def _seen(x: Tensor, size: torch.Size, window: Window) -> Iterator[tuple[int, int, Tensor]]:
    """What each position of the kernel sees of the padded images, at every output."""
    (above, left), (down, along) = window.padding, window.stride
    padded = torch.nn.functional.pad(x.double(), (left, left, above, above))
    _, _, height, width = window.output_size(x.shape, size)
    for ky in range(size[2]):
        for kx in range(size[3]):
            yield ky, kx, padded[:, :, ky::down, kx::along][:, :, :height, :width]
