"""Synapses: the layers whose weight gradient can be scaled, and how each connects its two ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Current = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(input, weight, bias) -> synaptic current."""


class Geometry(Protocol):
    """How a synapse connects its pre-synaptic to its post-synaptic end; the first dimension holds the examples."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current (Eq. 2)."""
        ...

    def input_gradient(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The gradient of `current` with respect to its input."""
        ...

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient of `current` with respect to its bias."""
        ...

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """Correlates the two ends; shaped like `weight`. With the output's gradient as `post`: the weight gradient."""
        ...


@dataclass(frozen=True)
class LinearGeometry:
    """A fully connected layer on [N, ..., features]."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Z = pre W^T + b."""
        return F.linear(pre, weight, bias)

    def input_gradient(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """dL/dz W."""
        return gradient @ weight

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The sum of dL/dz over all but the features."""
        return gradient.flatten(0, -2).sum(0)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """The outer product of the ends, summed over the examples."""
        return post.flatten(0, -2).t() @ pre.flatten(0, -2)


@dataclass(frozen=True)
class ConvolutionGeometry:
    """A 1-d or 2-d convolution with zero padding on [N, channels, ...].

    `behind` is what padding="same" with an even kernel adds behind each dimension beyond `padding`: 0 or 1.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    behind: tuple[int, ...]

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Z = W * pre + b."""
        convolve = F.conv1d if len(self.stride) == 1 else F.conv2d
        return convolve(self._padded(pre), weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def input_gradient(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The transposed convolution of dL/dz."""
        padded = self._backward(gradient, self._padded(pre), weight, [True, False, False])[0]
        return padded[(..., *(slice(size) for size in pre.shape[2:]))] if any(self.behind) else padded

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The sum of dL/dz over examples and positions."""
        return gradient.transpose(0, 1).flatten(1).sum(1)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """R[o,i,k] = sum over examples b and positions p of post[b,o,p] pre[b,i, p*stride + k*dilation - padding]."""
        return self._backward(post, self._padded(pre), weight, [False, True, False])[1]

    def _padded(self, pre: Tensor) -> Tensor:
        if not any(self.behind):
            return pre
        return F.pad(pre, [side for extra in reversed(self.behind) for side in (0, extra)])

    def _backward(self, gradient: Tensor, pre: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, ...]:
        return torch.ops.aten.convolution_backward(
            gradient,
            pre,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,  # not transposed
            [0] * len(self.stride),
            self.groups,
            wanted,
        )


def is_synapse(module: nn.Module) -> bool:
    """Whether `module` is a layer whose gradient can be scaled: a 1-d or 2-d convolution or a fully connected layer."""
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)


def geometry_of(synapse: nn.Module) -> Geometry:
    """The geometry of a synapse.

    Raises:
        TypeError: not an nn.Conv1d, nn.Conv2d or nn.Linear.
        ValueError: a convolution whose padding is not zeros.
    """
    if isinstance(synapse, nn.Linear):
        return LinearGeometry()
    if not isinstance(synapse, nn.Conv1d | nn.Conv2d):
        raise TypeError(f"a synapse is an nn.Conv1d, nn.Conv2d or nn.Linear, not {type(synapse).__name__}")
    if synapse.padding_mode != "zeros":
        raise ValueError(f"padding_mode={synapse.padding_mode!r} is not supported; use padding_mode='zeros'")
    padding, behind = _padding_of(synapse)
    return ConvolutionGeometry(synapse.stride, padding, synapse.dilation, synapse.groups, behind)


def _padding_of(synapse: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding at both sides of each dimension, and what comes behind it in addition."""
    even = (0,) * len(synapse.stride)
    if synapse.padding == "valid":
        return even, even
    if synapse.padding != "same":
        return cast(tuple[int, ...], synapse.padding), even
    totals = [reach * (size - 1) for reach, size in zip(synapse.dilation, synapse.kernel_size, strict=True)]
    return tuple(total // 2 for total in totals), tuple(total % 2 for total in totals)


def has_equal_ends(synapse: nn.Module) -> bool:
    """Whether the synapse's output has the shape of its input."""
    if isinstance(synapse, nn.Linear):
        return synapse.in_features == synapse.out_features
    if not isinstance(synapse, nn.Conv1d | nn.Conv2d) or synapse.in_channels != synapse.out_channels:
        return False
    sides = zip(*_padding_of(synapse), strict=True)
    padding = (2 * side + behind for side, behind in sides)
    geometry = zip(synapse.kernel_size, synapse.stride, padding, synapse.dilation, strict=True)
    return all(stride == 1 and total == reach * (size - 1) for size, stride, total, reach in geometry)


def overrides_current(synapse: nn.Module) -> bool:
    """Whether the synapse's class computes its current in a way of its own, which a gate can't stand in for."""
    if isinstance(synapse, nn.Linear):
        return type(synapse).forward is not nn.Linear.forward
    base = nn.Conv1d if isinstance(synapse, nn.Conv1d) else nn.Conv2d
    return getattr(type(synapse), _CONVOLUTION_SEAM) is not getattr(base, _CONVOLUTION_SEAM)


class _LinearForward:
    """Stands in for a linear layer's forward and hands its weight and bias to a gate."""

    def __init__(self, synapse: nn.Linear, gate: Current) -> None:
        self.synapse = synapse
        self.gate = gate

    def __call__(self, input: Tensor) -> Tensor:
        return self.gate(input, self.synapse.weight, self.synapse.bias)


# The method in which a convolution computes its current from input, weight and bias; subclasses reshape around it.
_CONVOLUTION_SEAM = "_conv_forward"


def current_of(synapse: nn.Module) -> Current:
    """How the synapse's class computes its current."""
    return F.linear if isinstance(synapse, nn.Linear) else getattr(synapse, _CONVOLUTION_SEAM)


def install_gate(synapse: nn.Module, gate: Current) -> None:
    """Lets `gate` compute the synapse's current; parameters, names and class stay as they are."""
    if isinstance(synapse, nn.Linear):
        synapse.__dict__["forward"] = _LinearForward(synapse, gate)
    else:
        synapse.__dict__[_CONVOLUTION_SEAM] = gate


def remove_gate(synapse: nn.Module) -> None:
    """Undoes `install_gate`."""
    del synapse.__dict__["forward" if isinstance(synapse, nn.Linear) else _CONVOLUTION_SEAM]


def has_gate(synapse: nn.Module) -> bool:
    """Whether a gate, ours or another, computes this synapse's current."""
    return ("forward" if isinstance(synapse, nn.Linear) else _CONVOLUTION_SEAM) in synapse.__dict__
