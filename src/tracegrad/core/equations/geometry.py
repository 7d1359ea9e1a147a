"""What each kind of synapse is to Eq. 6: its current, its gradients, and the correlation of its two ends."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.equations.weight_layout import OUTPUTS_FIRST, OneToOneLayout, WeightLayout
from tracegrad.events.mixed_precision import sums_products
from tracegrad.events.window import Window


class Geometry(Protocol):
    """How a synapse connects its pre-synaptic to its post-synaptic end; the first dimension holds the examples."""

    @property
    def weight_layout(self) -> WeightLayout:
        """Where outputs and inputs are in the weight."""
        ...

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

    def total(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """The sum of `correlate` over all weights, in float32 at least, for less than it takes."""
        ...

    def marginals(self, pre: Tensor, post: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`correlate` of each of `pre` with ones, and of ones with each of `post`.

        Args:
            pre: [signals, N, ...].
            post: [signals, N, ...] in the shape of a current; not as many, as a rule.
            weight: only its shape is used.

        Returns:
            [signals of pre, *weight] and [signals of post, *weight].
        """
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


class NoWindow:
    """No convolution of images."""

    def window(self, dimensions: int) -> Window | None:
        """None: the event kernels do not know it."""
        return None


class OneByOne(NoWindow):
    """Correlations one after the other."""

    def gradients(self: Geometry, gradient: Tensor, pre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`grad_input`, and `correlate` with the gradient as the post signal."""
        return self.grad_input(gradient, pre, weight), self.correlate(pre, gradient, weight)

    def marginals(self: Geometry, pre: Tensor, post: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`correlate` of each of `pre` with ones, and of ones with each of `post`."""
        ones_pre, ones_post = torch.ones_like(pre[0]), torch.ones_like(post[0])
        at_pre = [self.correlate(signal, ones_post, weight) for signal in pre]
        return torch.stack(at_pre), torch.stack([self.correlate(ones_pre, signal, weight) for signal in post])


class _FullyConnected(OneByOne):
    """What all products with a matrix over the last dimension have in common."""

    @property
    def weight_layout(self) -> WeightLayout:
        """`[out, in]`."""
        return OUTPUTS_FIRST

    def grad_bias(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """`dL/dz`, summed over the dimensions that the bias lacks."""
        return gradient.sum_to_size(shape)

    def total(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """Sums over the features, then over the rest."""
        pre, post = (end.sum(-1, dtype=at_least_float32(end)) for end in (pre, post))
        return (pre * post).sum()

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along the features."""
        return dim % pre.dim() == pre.dim() - 1

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each input feature of each current."""
        return current.numel() * pre.shape[-1]


@dataclass(frozen=True)
class LinearGeometry(_FullyConnected):
    """A fully connected layer on [N, ..., in], with weight [out, in]."""

    @sums_products
    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = pre W^T + b`."""
        return F.linear(pre, weight, bias)

    @sums_products
    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz W`."""
        return gradient @ weight

    @sums_products
    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i]` = sum over all but the last dimension of `post[...,o] pre[...,i]`."""
        return post.flatten(0, -2).t() @ pre.flatten(0, -2)

    def window(self, dimensions: int) -> Window | None:
        """Images of one pixel."""
        return Window()


@dataclass(frozen=True)
class MatmulGeometry(_FullyConnected):
    """A product `x @ W` on [N, ..., in], with weight [in, out]; with a bias, as torch.addmm, on [N, in]."""

    @property
    def weight_layout(self) -> WeightLayout:
        """`[in, out]`."""
        return WeightLayout(inputs_first=True)

    @sums_products
    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = pre W + b`."""
        return torch.matmul(pre, weight) if bias is None else torch.addmm(bias, pre, weight)

    @sums_products
    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz W^T`."""
        return gradient @ weight.t()

    @sums_products
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

    @property
    def weight_layout(self) -> WeightLayout:
        """As the subscripts say."""
        return WeightLayout(inputs_first=self.weight[0] != self.post[-1])

    @sums_products
    def current(self, pre: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`z = einsum(pre, W) + b`."""
        if self.weight_first:
            current = torch.einsum(f"{self.weight},{self.pre}->{self.post}", weight, pre)
        else:
            current = torch.einsum(f"{self.pre},{self.weight}->{self.post}", pre, weight)
        return current if bias is None else current + bias

    @sums_products
    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        """`dL/dz`, multiplied by the weight over the output features."""
        return torch.einsum(f"{self.post},{self.weight}->{self.pre}", gradient, weight)

    @sums_products
    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """`R[o,i]`, or `R[i,o]`, = sum over all but the last dimension of `post[...,o] pre[...,i]`."""
        products = post.flatten(0, -2).t() @ pre.flatten(0, -2)  # of single steps, too, which have fewer dimensions
        return products.t() if self.weight_layout.inputs_first else products


@dataclass(frozen=True)
class OneToOneGeometry(OneByOne):
    """One weight for each neuron, `z = w x`, or one that neurons share: `w` broadcasts to [N, ...] from the right."""

    @property
    def weight_layout(self) -> WeightLayout:
        """Each weight is an output by itself."""
        return OneToOneLayout()

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

    def total(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        """The sum of the products."""
        return (post * pre).sum(dtype=at_least_float32(pre))

    def acts_along(self, dim: int, pre: Tensor, weight: Tensor) -> bool:
        """Along each dimension in which there is more than one weight."""
        from_right = pre.dim() - dim % pre.dim()
        return from_right <= weight.dim() and weight.shape[-from_right] > 1

    def macs(self, pre: Tensor, current: Tensor, weight: Tensor) -> int:
        """One for each current."""
        return current.numel()
