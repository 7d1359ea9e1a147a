"""Spikes as bits, and the sums over them where these are faster than the dense way."""

import math
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor, nn

from tracegrad.events import operators, twins
from tracegrad.events.choice import OPERATIONS, Mode, Operation, can_pack, can_pay, can_sum, cost
from tracegrad.events.onto import NOTHING, Onto
from tracegrad.events.window import Window, current_layout, layout_of, turned_round


@dataclass(frozen=True)
class Spikes:
    """Images [N, C, H, W] of which every value is 0 or 1, packed.

    Attributes:
        bits: [N, H, W, words], of `twins.pack`.
        channels: C.
        dtype: of the images.
        rate: the part of the values that are 1.
        mode: whether sums over them are taken where they pay, or always.
        layout: of the images in memory.
    """

    bits: Tensor
    channels: int
    dtype: torch.dtype
    rate: float
    mode: Mode
    layout: torch.memory_format

    @classmethod
    def read(cls, x: Tensor, mode: Mode, dtype: torch.dtype, *weights: torch.Size) -> "Spikes | None":
        """Packs images [N, C, H, W] for convolutions by such weights to, or from, currents of this type.

        None where these are no spikes, of no kind that the kernels know, or the dense way is faster at any rate.
        """
        if not can_pack(x, mode):
            return None
        if mode == "auto" and not any(can_pay(x.shape, weight, dtype) for weight in weights):
            return None
        packed = _way(x.dtype).pack(x.detach())
        if packed is None:
            return None
        return cls(packed[0], x.shape[1], x.dtype, packed[1] / x.numel(), mode, layout_of(x))

    @property
    def images(self) -> Tensor:
        """[N, C, H, W], in their layout."""
        images: Tensor = _way(self.dtype).unpack(self.bits, self.channels, self.dtype)
        return images.contiguous(memory_format=self.layout)

    @property
    def facts(self) -> tuple[int, torch.dtype, float, Mode, torch.memory_format]:
        """All but the bits, which autograd keeps."""
        return self.channels, self.dtype, self.rate, self.mode, self.layout

    @property
    def shape(self) -> torch.Size:
        """Of the images."""
        return torch.Size((self.bits.shape[0], self.channels, *self.bits.shape[1:3]))

    def part(self, index: int, parts: int) -> "Spikes":
        """One of so many equal parts of the images, with the rate of all."""
        size = len(self.bits) // parts
        return replace(self, bits=self.bits[index * size : (index + 1) * size])

    def spread(self, stride: tuple[int, int], size: tuple[int, int]) -> "Spikes":
        """On larger images [N, C, *size], each at `stride` times its position."""
        bits = self.bits.new_zeros(len(self.bits), *size, self.bits.shape[-1])
        bits[:, :: stride[0], :: stride[1]][:, : self.bits.shape[1], : self.bits.shape[2]] = self.bits
        fired = self.rate * self.bits.shape[1] * self.bits.shape[2]
        return replace(self, bits=bits, rate=fired / (size[0] * size[1]))

    def current(self, weight: Tensor, bias: Tensor | None, window: Window, dtype: torch.dtype) -> Tensor | None:
        """The current [N, outputs, H', W'], laid out as by `torch.conv2d`.

        None where the dense way is faster, or the only one.
        """
        if not _is_plain(weight) or not can_sum(self.shape, self.dtype, weight.shape, weight.dtype, dtype, window):
            return None
        if self._cost("current", weight.shape, window, dtype) >= 1:
            return None
        current = _way(dtype).convolve(self.bits, weight, bias, window, dtype)
        return None if current is None else current.contiguous(memory_format=current_layout(self.layout, weight))

    def pays(self, weight: torch.Size, window: Window, dtype: torch.dtype) -> bool:
        """Whether the current, or the gradient, of a weight of this shape takes less time over spikes."""
        return any(self._cost(each, weight, window, dtype) < 1 for each in OPERATIONS)

    def cost(self, size: torch.Size, window: Window, dtype: torch.dtype) -> float:
        """Of `correlate` with a `post` of this type, as a part of the dense way's."""
        return self._cost("weight", size, window, dtype)

    def _cost(self, operation: Operation, weight: torch.Size, window: Window, dtype: torch.dtype) -> float:
        if self.mode == "always":
            return 0
        images, _, *sizes = window.output_size(self.shape, weight)
        return cost(operation, self.rate, weight, images * math.prod(sizes), dtype)

    def correlate(
        self, post: Tensor, size: torch.Size, window: Window, onto: Onto = NOTHING, turned: bool = False
    ) -> Tensor | None:
        """R[o,i,k] = sum over n and positions p of post[n,o,p] * s[n,i, p * stride + k - padding], in float32 at least.

        The weight's gradient, if `post` is that of the current; None as from `current`. `onto` and `turned` as of
        `twins.correlate`.
        """
        possible = can_sum(self.shape, self.dtype, size, post.dtype, post.dtype, window)
        if not possible or not _is_plain(post) or self.cost(size, window, post.dtype) >= 1:
            return None
        return _way(post.dtype).correlate(self.bits, post, size, window, onto, turned)


def _is_plain(x: Tensor) -> bool:
    """Whether all of x lies in this machine's memory, which can't be said of what others make of tensors."""
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"


def _way(dtype: torch.dtype) -> ModuleType:
    return twins if dtype == torch.float64 else operators


def correlate_ends(
    pre: Tensor,
    post: Tensor,
    spikes: tuple[Spikes | None, Spikes | None],
    size: torch.Size,
    window: Window,
    onto: Onto = NOTHING,
) -> Tensor | None:
    """`Spikes.correlate` over the spikes of that end which takes less time.

    Args:
        pre: images [N, C, H, W].
        post: [N, outputs, H', W'], of the same type.
        spikes: both, packed, where they are spikes.
        size: of R, [outputs, C, kernel height, kernel width].
        window: stride and padding.
        onto: what R is added to.

    Returns:
        The sum, or None where neither end is spikes, or the dense way is faster.
    """
    ahead = spikes[0]
    back = None if spikes[1] is None else _turned_round(spikes[1], pre.shape, size, window)
    if back is not None and (ahead is None or back.cost(pre.dtype) < ahead.cost(size, window, post.dtype)):
        return back.correlate(pre, onto)
    return None if ahead is None else ahead.correlate(post, size, window, onto)


def both_pay(pre: Spikes, post: Spikes, size: torch.Size, window: Window) -> bool:
    """Whether a sum over the spikes in `pre` and one over those in `post` take less than one dense correlation."""
    back = _turned_round(post, pre.shape, size, window)
    return back is not None and pre.cost(size, window, pre.dtype) + back.cost(pre.dtype) < 1


@dataclass(frozen=True)
class _TurnedRound:
    """A correlation whose ends are exchanged, so that it is summed over the post-synaptic spikes."""

    spikes: Spikes
    size: torch.Size
    window: Window

    def cost(self, dtype: torch.dtype) -> float:
        """As `Spikes.cost`."""
        return self.spikes.cost(self.size, self.window, dtype)

    def correlate(self, pre: Tensor, onto: Onto) -> Tensor | None:
        """As `Spikes.correlate`, in the original order of its ends."""
        return self.spikes.correlate(pre, self.size, self.window, onto, turned=True)


def _turned_round(post: Spikes, pre: torch.Size, size: torch.Size, window: Window) -> _TurnedRound | None:
    """With the kernel turned round; strides become gaps between the post-synaptic spikes."""
    rows, columns = (kernel - 1 - padding for kernel, padding in zip(size[2:], window.padding, strict=True))
    if min(rows, columns) < 0:
        return None
    if window.stride != (1, 1):
        height, width = (
            n + 2 * padding - kernel + 1 for n, padding, kernel in zip(pre[2:], window.padding, size[2:], strict=True)
        )
        post = post.spread(window.stride, (height, width))
    return _TurnedRound(post, turned_round(size), Window(padding=(rows, columns)))
