"""How a kernel moves over an image."""

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """Stride and padding of a convolution, (y, x) in positions; Linear and Conv1d are windows on images of height 1."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def output_size(self, images: torch.Size, weight: torch.Size) -> tuple[int, int, int, int]:
        """The shape [N, outputs, H', W'] of the current of images [N, C, H, W]."""
        height, width = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(images[2:], weight[2:], self.stride, self.padding, strict=True)
        )
        return images[0], weight[0], height, width


def turned_round(weight: torch.Size) -> torch.Size:
    """The shape of a weight [outputs, C, y, x] whose ends are exchanged."""
    return torch.Size((weight[1], weight[0], *weight[2:]))


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels last, or contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def current_layout(images: torch.memory_format, weight: Tensor) -> torch.memory_format:
    """That of a current as PyTorch's convolutions have it: channels last if one of both is."""
    return torch.channels_last if torch.channels_last in (images, layout_of(weight)) else torch.contiguous_format
