"""Correlations of two signals of which one, at least, is spikes."""

import math

import torch
from torch import Tensor

from tracegrad.events.choice import break_even, is_possible, mode
from tracegrad.events.library import machine_instruction_set
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
    """Whether a sum over the spikes in `pre` and one over those in `post` take less than one dense correlation."""
    swapped = _turned_round(size, window)
    if swapped is None:
        return False
    back = torch.Size((size[1], size[0], *size[2:]))
    return _cost(pre, post, size, window) + _cost(post, pre, back, swapped) < 1


def _turned_round(size: torch.Size, window: Window) -> Window | None:
    rows, columns = size[2] - 1 - window.padding[0], size[3] - 1 - window.padding[1]
    return Window(padding=(rows, columns)) if window.stride == (1, 1) and min(rows, columns) >= 0 else None


def _possible(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> bool:
    if torch.compiler.is_compiling() or x.dtype != other.dtype:
        return False
    return is_possible(x, x.new_empty(0, *size[1:]), other.dtype, window, mode())


def _cost(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> float:
    """Of a sum over the spikes in x, as a part of the dense way's."""
    rate = Spikes.read(x).rate if _possible(x, other, size, window) else None
    if rate is None:
        return math.inf
    return (
        0
        if mode() == "always"
        else rate / max(break_even("weight", size, other.dtype, machine_instruction_set()), 1e-9)
    )


def _over_spikes(x: Tensor, other: Tensor, size: torch.Size, window: Window) -> Tensor | None:
    if not _possible(x, other, size, window):
        return None
    spikes = Spikes.read(x)
    return spikes.sum_over(other, size, window, mode())
