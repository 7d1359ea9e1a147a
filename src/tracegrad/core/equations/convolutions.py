"""The geometry of convolutions, and of transposed ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.compiled import compiled, flatten_steps, order_to_compile, unflatten_steps
from tracegrad.core.equations.geometry import NoWindow, OneByOne
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.equations.weight_layout import WeightLayout
from tracegrad.events.dense import ConvolutionOptions, convolution_backward
from tracegrad.events.mixed_precision import sums_products
from tracegrad.events.window import Window


@dataclass(frozen=True)
class _Convolution(ABC):
    """What convolutions and transposed ones have in common; tuples hold one number for each position dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """`dL/dz`, summed over examples and positions."""
        return gradient.movedim(1, -1).sum_to_size(shape)

    @abstractmethod
    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R` of Eq. 6."""

    def _total(self, seen: Tensor, at: Tensor, weight: Tensor) -> Tensor:
        """Each window's sum of what the kernel has `seen` through it, times what stands `at` it, in each group."""
        seen, at = (_over_channels(end, self.groups) for end in (seen, at))
        seen = F.pad(seen, [side for padding in reversed(self.padding) for side in (padding, padding)])
        for dim, stride, dilation in zip(range(2, at.dim()), self.stride, self.dilation, strict=True):
            # One axis after the other: the sum of a window is that of its rows' sums.
            starts, length = range(0, dilation * weight.shape[dim], dilation), stride * (at.shape[dim] - 1) + 1
            row = reduce(torch.add, [seen.narrow(dim, start, length) for start in starts])
            seen = row.movedim(dim, 0)[::stride].movedim(0, dim)
        return (seen * at).sum()

    def _marginals(
        self, seen: Tensor, at: Tensor, weight: Tensor, correlate: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Those of the signals `seen` through the kernel, and of those `at` it: one correlation each, of one group.

        All signals are channels in it, and one channel of ones stands for all channels at the other end.
        """
        kernel = weight.shape[2:]
        every_seen, every_at = (signals.transpose(0, 1).flatten(1, 2) for signals in (seen, at))
        one_seen, one_at = (torch.ones_like(signals[0, :, :1]) for signals in (seen, at))
        of_seen = correlate(every_seen, one_at, weight.new_empty(1, every_seen.shape[1], *kernel))
        of_at = correlate(one_seen, every_at, weight.new_empty(every_at.shape[1], 1, *kernel))
        of_seen = of_seen.reshape(len(seen), self.groups, 1, -1, *kernel)
        of_seen = of_seen.expand(-1, -1, len(weight) // self.groups, *of_seen.shape[3:]).flatten(1, 2)
        return of_seen, of_at.reshape(len(at), -1, 1, *kernel).expand(-1, *weight.shape)

    def _is_pointwise(self, axis: int, weight: Tensor, extra: tuple[int, ...]) -> bool:
        """Whether each position along `axis` is convolved by itself."""
        return (weight.shape[2 + axis], self.stride[axis], self.padding[axis], extra[axis]) == (1, 1, 0, 0)


@dataclass(frozen=True)
class ConvolutionGeometry(_Convolution, NoWindow):
    """A 1-d, 2-d or 3-d convolution with zero padding on [N, channels, ...], with weight [out, in / groups, ...].

    `behind` is what padding="same" with an even kernel adds behind each dimension beyond `padding`: 0 or 1.
    """

    behind: tuple[int, ...]

    @property
    def weight_layout(self) -> WeightLayout:
        """`[out, in / groups, ...]`."""
        return WeightLayout(self.groups)

    @sums_products
    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = W * pre + b`."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        return convolve(self._pad(pre), weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The transposed convolution of `dL/dz`."""
        return self._cut(self._backward(gradient, self._pad(pre), weight, (True, False))[0], pre)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i,k]` = sum over `b` and positions `p` of `post[b,o,p] pre[b,i, p*stride + k*dilation - padding]`."""
        return self._backward(post, self._pad(pre), weight, (False, True))[1]

    def total(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """The windows look at what comes in."""
        return self._total(self._pad(pre), post, weight)

    def marginals(self, pre: Tensor, post: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The kernel sees what comes in."""
        return self._marginals(pre, post, weight, replace(self, groups=1).correlate)

    def window(self, dimensions: int) -> Window | None:
        """A 1-d convolution moves over images of height 1."""
        if self.groups != 1 or any(self.behind) or {*self.dilation} != {1} or dimensions != 2 + len(self.stride):
            return None
        if len(self.stride) == 1:
            return Window((1, self.stride[0]), (0, self.padding[0]))
        return Window((self.stride[0], self.stride[1]), (self.padding[0], self.padding[1])) if dimensions == 4 else None

    def gradients(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        grad_input, grad_weight = self._backward(gradient, self._pad(pre), weight, (True, True))
        return self._cut(grad_input, pre), grad_weight

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along the channels, and along positions unless each is convolved by itself."""
        dim %= pre.dim()
        return dim == 1 or (dim > 1 and not self._is_pointwise(dim - 2, weight, self.behind))

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each weight that a current sums over."""
        return current.numel() * weight[0].numel()

    def _pad(self, pre: Tensor) -> Tensor:
        if not any(self.behind):
            return pre
        return F.pad(pre, [side for extra in reversed(self.behind) for side in (0, extra)])

    def _cut(self, padded: Tensor, pre: Tensor) -> Tensor:
        return padded[(..., *(slice(size) for size in pre.shape[2:]))] if any(self.behind) else padded

    def _backward(
        self, gradient: Tensor, pre: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        options = ConvolutionOptions(
            self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups
        )
        return convolution_backward(gradient, pre, weight, options, wanted)


@dataclass(frozen=True)
class TransposedConvolutionGeometry(_Convolution, OneByOne):
    """A 1-d, 2-d or 3-d transposed convolution on [N, channels, ...], with weight [in, out / groups, ...]."""

    output_padding: tuple[int, ...]

    @property
    def weight_layout(self) -> WeightLayout:
        """`[in, out / groups, ...]`."""
        return WeightLayout(self.groups, inputs_first=True)

    @sums_products
    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z[b,o, p*stride + k*dilation - padding]` sums `W[i,o,k] pre[b,i,p]`; `bias[o]` is added."""
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(self.stride) - 1]
        sizes = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return convolve(pre, weight, bias, *sizes)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The convolution of `dL/dz`."""
        return self._backward(gradient, pre, weight, (True, False))[0]

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[i,o,k]` = sum over `b` and positions `p` of `post[b,o, p*stride + k*dilation - padding] pre[b,i,p]`."""
        return self._backward(post, pre, weight, (False, True))[1]

    def total(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """The windows look at what comes out."""
        return self._total(post, pre, weight)

    def marginals(self, pre: Tensor, post: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The kernel sees what comes out."""
        correlate = replace(self, groups=1).correlate
        of_post, of_pre = self._marginals(post, pre, weight, lambda seen, at, shape: correlate(at, seen, shape))
        return of_pre, of_post

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along the channels, and along positions unless each is convolved by itself."""
        dim %= pre.dim()
        return dim == 1 or (dim > 1 and not self._is_pointwise(dim - 2, weight, self.output_padding))

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each weight that an input is multiplied by."""
        return pre.numel() * weight[0].numel()

    def _backward(
        self, gradient: Tensor, pre: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        options = ConvolutionOptions(self.stride, self.padding, self.dilation, True, self.output_padding, self.groups)
        return convolution_backward(gradient, pre, weight, options, wanted)


def _over_channels(x: Tensor, groups: int) -> Tensor:
    """The sums over the channels of each group, [N, groups, ...], in float32 at least."""
    order, channels = order_to_compile(x), x.shape[1] // groups
    if order is None or order[-1] != 1 or channels % 16:
        return x.unflatten(1, (groups, channels)).sum(2, dtype=at_least_float32(x))
    blocks = compiled(_of_sixteen)(flatten_steps(x, order))
    sums = blocks.unflatten(1, (-1, groups, channels // 16)).sum(3)
    like = torch.empty(len(x), groups, *x.shape[2:], device="meta")
    return unflatten_steps(sums.flatten(1), like, order)


def _of_sixteen(x: Tensor) -> Tensor:
    """Sums of so many neighbours: a loop whose length is known is several times faster than one over all channels."""
    return x.unflatten(1, (-1, 16)).sum(2, dtype=at_least_float32(x))
