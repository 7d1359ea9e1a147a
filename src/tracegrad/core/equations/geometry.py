"""What each kind of synapse is to Eq. 6: its current, its gradients, and the correlation of its two ends."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.events.window import Window


class Geometry(Protocol):
    """How a synapse connects its pre-synaptic to its post-synaptic end; the first dimension holds the examples."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current `z` (Eq. 2)."""
        ...

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The gradient of `current` with respect to `pre`, given `dL/dz`."""
        ...

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of `current` with respect to a bias of `shape`, given `dL/dz`."""
        ...

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R` of Eq. 6, shaped like `weight`, whose values are not read; the weight gradient if `post` is `dL/dz`."""
        ...

    def gradients(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`grad_input`, and `correlate` with the gradient as the post signal."""
        ...

    def window(self, dimensions: int) -> Window | None:
        """The synapse as a convolution of images, for inputs of so many dimensions; None if it is none."""
        ...

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Whether elements of `pre` along `dim` share currents or meet different weights, so that it can't be time."""
        ...

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """Multiply-accumulates of one call; zeros, those of the padding too, count as any other value."""
        ...


class _NoWindow:
    def window(self, dimensions: int) -> Window | None:
        """None: the event kernels do not know it."""
        return None


class _OneByOne(_NoWindow):
    """Both gradients, one after the other."""

    def gradients(self: Geometry, gradient: Tensor, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`grad_input`, and `correlate` with the gradient as the post signal."""
        return self.grad_input(gradient, pre, weight), self.correlate(pre, gradient, weight)


class _FullyConnected(_OneByOne):
    """What all products with a matrix over the last dimension have in common."""

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """`dL/dz`, summed over the dimensions that the bias lacks."""
        return gradient.sum_to_size(shape)

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along the features."""
        return dim % pre.dim() == pre.dim() - 1

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each input feature of each current."""
        return current.numel() * pre.shape[-1]


@dataclass(frozen=True)
class LinearGeometry(_FullyConnected):
    """A fully connected layer on [N, ..., in], with weight [out, in]."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = pre W^T + b`."""
        return F.linear(pre, weight, bias)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz W`."""
        return gradient @ weight

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i]` = sum over all but the last dimension of `post[...,o] pre[...,i]`."""
        return post.flatten(0, -2).t() @ pre.flatten(0, -2)

    def window(self, dimensions: int) -> Window | None:
        """Images of one pixel."""
        return Window()


@dataclass(frozen=True)
class MatmulGeometry(_FullyConnected):
    """A product `x @ W` on [N, ..., in], with weight [in, out]; with a bias, as torch.addmm, on [N, in]."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = pre W + b`."""
        return torch.matmul(pre, weight) if bias is None else torch.addmm(bias, pre, weight)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz W^T`."""
        return gradient @ weight.t()

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[i,o]` = sum over all but the last dimension of `pre[...,i] post[...,o]`."""
        return pre.flatten(0, -2).t() @ post.flatten(0, -2)


@dataclass(frozen=True)
class EinsumGeometry(_FullyConnected):
    """A fully connected layer written as an einsum, such as "abc,cd->abd"; its current has einsum's own rounding.

    `pre`, `weight` and `post` are the subscripts of input, weight and current; `weight_first`: the order of operands.
    """

    pre: str
    weight: str
    post: str
    weight_first: bool

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = einsum(pre, W) + b`."""
        if self.weight_first:
            current = torch.einsum(f"{self.weight},{self.pre}->{self.post}", weight, pre)
        else:
            current = torch.einsum(f"{self.pre},{self.weight}->{self.post}", pre, weight)
        return current if bias is None else current + bias

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz`, multiplied by the weight over the output features."""
        return torch.einsum(f"{self.post},{self.weight}->{self.pre}", gradient, weight)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i]`, or `R[i,o]`, = sum over all but the last dimension of `post[...,o] pre[...,i]`."""
        products = post.flatten(0, -2).t() @ pre.flatten(0, -2)  # of single steps, too, which have fewer dimensions
        return products if self.weight[0] == self.post[-1] else products.t()


@dataclass(frozen=True)
class OneToOneGeometry(_OneByOne):
    """One weight for each neuron, `z = w x`, or one that neurons share: `w` broadcasts to [N, ...] from the right."""

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = w pre + b`."""
        current = pre * weight
        return current if bias is None else current + bias

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`w dL/dz`."""
        return gradient * weight

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """`dL/dz`, summed over the dimensions that the bias lacks."""
        return gradient.sum_to_size(shape)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[i]` = sum over examples `b` of `post[b,i] pre[b,i]`; a weight that neurons share sums over them too."""
        return (post * pre).sum_to_size(weight.shape)

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along each dimension in which there is more than one weight."""
        from_right = pre.dim() - dim % pre.dim()
        return from_right <= weight.dim() and weight.shape[-from_right] > 1

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each current."""
        return current.numel()


@dataclass(frozen=True)
class _Convolution:
    """What convolutions and transposed ones have in common; tuples hold one number for each position dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """`dL/dz`, summed over examples and positions."""
        return gradient.movedim(1, -1).sum_to_size(shape)

    def _is_pointwise(self, axis: int, weight: Tensor, extra: tuple[int, ...]) -> bool:
        """Whether each position along `axis` is convolved by itself."""
        return (weight.shape[2 + axis], self.stride[axis], self.padding[axis], extra[axis]) == (1, 1, 0, 0)


@dataclass(frozen=True)
class ConvolutionGeometry(_Convolution, _NoWindow):
    """A 1-d, 2-d or 3-d convolution with zero padding on [N, channels, ...], with weight [out, in / groups, ...].

    `behind` is what padding="same" with an even kernel adds behind each dimension beyond `padding`: 0 or 1.
    """

    behind: tuple[int, ...]

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = W * pre + b`."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        return convolve(self._pad(pre), weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The transposed convolution of `dL/dz`."""
        return self._cut(self._backward(gradient, self._pad(pre), weight, [True, False, False])[0], pre)

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i,k]` = sum over `b` and positions `p` of `post[b,o,p] pre[b,i, p*stride + k*dilation - padding]`."""
        return self._backward(post, self._pad(pre), weight, [False, True, False])[1]

    def window(self, dimensions: int) -> Window | None:
        """A 1-d convolution moves over images of height 1."""
        if self.groups != 1 or any(self.behind) or {*self.dilation} != {1} or dimensions != 2 + len(self.stride):
            return None
        if len(self.stride) == 1:
            return Window((1, self.stride[0]), (0, self.padding[0]))
        return Window((self.stride[0], self.stride[1]), (self.padding[0], self.padding[1])) if dimensions == 4 else None

    def gradients(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        grad_input, grad_weight, _ = self._backward(gradient, self._pad(pre), weight, [True, True, False])
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

    def _backward(self, gradient: Tensor, pre: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, ...]:
        operation = self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups
        return torch.ops.aten.convolution_backward(gradient, pre, weight, None, *operation, wanted)


@dataclass(frozen=True)
class TransposedConvolutionGeometry(_Convolution, _OneByOne):
    """A 1-d, 2-d or 3-d transposed convolution on [N, channels, ...], with weight [in, out / groups, ...]."""

    output_padding: tuple[int, ...]

    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z[b,o, p*stride + k*dilation - padding]` sums `W[i,o,k] pre[b,i,p]`; `bias[o]` is added."""
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(self.stride) - 1]
        sizes = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return convolve(pre, weight, bias, *sizes)

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """The convolution of `dL/dz`."""
        return self._backward(gradient, pre, weight, [True, False, False])[0]

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[i,o,k]` = sum over `b` and positions `p` of `post[b,o, p*stride + k*dilation - padding] pre[b,i,p]`."""
        return self._backward(post, pre, weight, [False, True, False])[1]

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along the channels, and along positions unless each is convolved by itself."""
        dim %= pre.dim()
        return dim == 1 or (dim > 1 and not self._is_pointwise(dim - 2, weight, self.output_padding))

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each weight that an input is multiplied by."""
        return pre.numel() * weight[0].numel()

    def _backward(self, gradient: Tensor, pre: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, ...]:
        operation = self.stride, self.padding, self.dilation, True, self.output_padding, self.groups
        return torch.ops.aten.convolution_backward(gradient, pre, weight, None, *operation, wanted)
