"""Pointwise convolutions that skip positions, on CPUs: oneDNN 3.x must not see those of few channels.

Where channels are last in memory and fewer than its blocks hold, it writes past its memory for the weight's gradient on
AVX2: wrong gradients, or a crash (https://github.com/uxlfoundation/oneDNN/issues/6035). Without the positions that the
kernel skips, the sums are the same, of a convolution of stride 1.
"""

from collections.abc import Sequence

from torch import Tensor

LARGEST_BLOCK = 16
"""Channels in oneDNN's largest block."""


def skips(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether oneDNN must not see it: x [N, C, ...], and a weight [outputs, C, ...] whose kernel has one element."""
    few = x.shape[1] < LARGEST_BLOCK and x.device.type == "cpu"
    return few and weight.shape[2:].numel() == 1 and max(stride) > 1 and not any(padding)


def seen(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The positions of x that the kernel sees."""
    return x[(..., *(slice(None, None, step) for step in stride))]
