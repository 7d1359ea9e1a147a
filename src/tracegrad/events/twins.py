"""The operators in plain PyTorch: what the kernels are held against, and what computes in float64."""

import torch
from torch import Tensor

from tracegrad.events.onto import NOTHING, Onto
from tracegrad.events.window import Window


def pack(x: Tensor) -> tuple[Tensor, int] | None:
    """Spikes [N, C, H, W] as bits, int64 [N, H, W, ceil(C / 64)], and how many fired; None if not all are 0 or 1.

    Channel c is bit c mod 64 of word c // 64. A negative zero is neither.
    """
    fired = x != 0
    if not torch.equal(fired, x == 1) or bool(torch.signbit(x).any()):
        return None
    channels = x.shape[1]
    columns = torch.nn.functional.pad(fired.movedim(1, -1), (0, -channels % 64)).unflatten(-1, (-1, 64))
    places = torch.arange(64, device=x.device)
    return (columns.long() << places).sum(-1), int(fired.sum())


def unpack(bits: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """The inverse of `pack`: spikes [N, C, H, W], channels last in memory."""
    places = torch.arange(64, device=bits.device)
    return (bits[..., None] >> places & 1).flatten(-2)[..., :channels].movedim(-1, 1).to(dtype)


def convolve(bits: Tensor, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype) -> Tensor | None:
    """The current [N, outputs, H', W'] of packed spikes, as `dtype`.

    Args:
        bits: of `pack`.
        weight: [outputs, C, kernel height, kernel width].
        bias: [outputs], or None.
        window: stride and padding.
        dtype: of the current.
    """
    spikes = unpack(bits, weight.shape[1], weight.dtype)
    return torch.conv2d(spikes, weight, bias, window.stride, window.padding).to(dtype)


def correlate(
    bits: Tensor,
    post: Tensor,
    size: torch.Size,
    window: Window,
    onto: Onto = NOTHING,
    turned: bool = False,
) -> Tensor | None:
    """`onto` plus R[o,i,k] = sum over n and positions p of post[n,o,p] * spikes[n,i, p * stride + k - padding].

    In float32 at least, whatever the type of `post`.

    Args:
        bits: of `pack`.
        post: [N, outputs, H', W'].
        size: of R, [outputs, C, kernel height, kernel width].
        window: stride and padding.
        onto: what R is added to.
        turned: exchange the ends of R, and turn its kernel round, before it is added.
    """
    precise = torch.promote_types(post.dtype, torch.float32)
    spikes, weight = unpack(bits, size[1], precise), post.new_empty(size, dtype=precise)
    operation = window.stride, window.padding, (1, 1), False, (0, 0), 1, [False, True, False]
    found = torch.ops.aten.convolution_backward(post.to(precise), spikes, weight, None, *operation)[1]
    return onto.add(found.flip(2, 3).transpose(0, 1) if turned else found)
