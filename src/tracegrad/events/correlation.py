"""Correlations of two signals of which one, at least, is spikes."""

import torch
from torch import Tensor

from tracegrad.events.choice import is_possible, mode, pays
from tracegrad.events.spikes import Spikes
from tracegrad.events.window import Window


def spike_current(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype) -> Tensor | None:
    """The current of images [N, C, H, W] by the event kernels, without a graph; None where they do not pay."""
    chosen = mode()
    if torch.compiler.is_compiling() or not is_possible(x, weight, dtype, window, chosen):
        return None
    return Spikes.read(x).current(weight, bias, window, dtype, chosen)


def correlate_spikes(pre: Tensor, post: Tensor, size: torch.Size, window: Window) -> Tensor | None:
    """R[o,i,k] = sum over n and positions p of post[n,o,p] * pre[n,i, p * stride + k - padding], in float32 at least.

    The event kernels sum over the spikes in `pre`, or else over those in `post`: with stride 1 both ends may be
    exchanged, and the kernel turned round.

    Args:
        pre: [N, C, H, W].
        post: [N, outputs, H', W'], of the same type.
        size: of R, [outputs, C, kernel height, kernel width].
        window: stride and padding.

    Returns:
        R, or None where neither is spikes, or the event kernels do not pay.
    """
    found = _over_spikes(pre, post, size, window)
    swapped = _turned_round(size, window)
    if found is not None or swapped is None:
        return found
    found = _over_spikes(post, pre, torch.Size((size[1], size[0], *size[2:])), swapped)
    return None if found is None else found.flip(2, 3).transpose(0, 1)


def both_pay(pre: Tensor, post: Tensor, size: torch.Size, window: Window) -> bool:
    """Whether `correlate_spikes` would sum over the spikes in either of `pre` and `post`."""
    swapped = _turned_round(size, window)
    back = torch.Size((size[1], size[0], *size[2:]))
    return swapped is not None and _pays(pre, post, size, window) and _pays(post, pre, back, swapped)


def _turned_round(size: torch.Size, window: Window) -> Window | None:
    rows, columns = size[2] - 1 - window.padding[0], size[3] - 1 - window.padding[1]
    return Window(padding=(rows, columns)) if window.stride == (1, 1) and min(rows, columns) >= 0 else None


def _possible(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> bool:
    if torch.compiler.is_compiling() or x.dtype != other.dtype:
        return False
    return is_possible(x, x.new_empty(0, *size[1:]), other.dtype, window, mode())


def _pays(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> bool:
    if not _possible(x, other, size, window):
        return False
    rate = Spikes.read(x).rate
    return rate is not None and pays("weight", rate, size, other.dtype, mode())


def _over_spikes(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> Tensor | None:
    if not _possible(x, other, size, window):
        return None
    spikes = Spikes.read(x)
    return spikes.sum_over(other, size, window, mode())
