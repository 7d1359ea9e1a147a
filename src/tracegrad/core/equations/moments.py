"""The sums over the two ends of a synapse that normalisations need which divide the firing rates out."""

from typing import NamedTuple

import torch
from torch import Tensor

from tracegrad.core.compiled import compiled, flatten_steps, order_to_compile, unflatten_steps
from tracegrad.core.equations.geometry import Geometry


class Moments(NamedTuple):
    """Sums over the examples and output positions whose input position lies inside the image, shaped like the weight.

    With p and q the signals at the pre- and the post-synaptic end, and w = 1 or the weight of an example:

    Attributes:
        product: sum of w p q, which is R of one term.
        number: n, the sum of w.
        pre: P1, the sum of w p.
        pre_squared: P2, the sum of w p^2.
        post: Q1, the sum of w q.
        post_squared: Q2, the sum of w q^2.
    """

    product: Tensor
    number: Tensor
    pre: Tensor
    pre_squared: Tensor
    post: Tensor
    post_squared: Tensor

    def cosine(self) -> Tensor:
        """R / sqrt(P2 Q2), in [0, 1] for signals that are not negative; 0 where an end is silent."""
        return _ratio(self.product, (self.pre_squared * self.post_squared).sqrt()).clamp(-1, 1)

    def centered(self) -> Tensor:
        """Pearson's correlation, in [-1, 1]; 0 where an end does not vary.

        (R - P1 Q1 / n) / sqrt((P2 - P1^2 / n) (Q2 - Q1^2 / n)). An end does not vary where its factor is at most 1e-5
        (float64: 1e-10) of its sum of squares.
        """
        least = 1e-10 if self.product.dtype == torch.float64 else 1e-5
        number = self.number.clamp(min=torch.finfo(self.number.dtype).tiny)
        pre, post = self.pre_squared - self.pre**2 / number, self.post_squared - self.post**2 / number
        varies = (pre > least * self.pre_squared) & (post > least * self.post_squared)
        together = self.product - self.pre * self.post / number
        return _ratio(together, torch.where(varies, pre * post, 0).sqrt()).clamp(-1, 1)

    def lift(self) -> Tensor:
        """R n / (P1 Q1): 1 where the ends are independent of each other; 0 where one is silent."""
        return _ratio(self.product * self.number, self.pre * self.post)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1), 0)


def sums_over_examples(signal: Tensor, weights: Tensor) -> Tensor:
    """The sums over examples of w p and w p^2, [T, 2, ...], in the precision of the weights.

    Args:
        signal: p, [T, N, ...].
        weights: w, [T, N].
    """
    order = order_to_compile(signal)
    if order is None or order[1] != 1:
        return _sums(weights, signal.flatten(2)).unflatten(2, signal.shape[2:])
    sums = compiled(_sums)(weights, flatten_steps(signal, order).unflatten(1, (signal.shape[1], -1)))
    like = torch.empty(len(signal), 2, *signal.shape[2:], device="meta")
    return unflatten_steps(sums.flatten(1), like, order)


def _sums(weights: Tensor, signal: Tensor) -> Tensor:
    weighted = weights[:, :, None] * signal
    return torch.stack([weighted.sum(1), (weighted * signal).sum(1)], 1)


def sums_of_ends(geometry: Geometry, weight: Tensor, pre: Tensor, post: Tensor, number: Tensor) -> Tensor:
    """All of `Moments` but the product, in its order, [T, 5, *weight].

    Args:
        geometry: of the synapse.
        weight: of the synapse; only its shape is used.
        pre: sums over the examples of w p and w p^2, [T, 2, ...].
        post: of w q and w q^2, [T, 2, ...] in the shape of a current.
        number: of w, [T].
    """
    signals = torch.cat([torch.ones_like(pre[0, :1]), pre.flatten(0, 1)])[:, None]
    at_pre, at_post = geometry.marginals(signals, post.flatten(0, 1)[:, None], weight.to(pre))
    counted = torch.einsum("t,...->t...", number, at_pre[0])
    return torch.cat([counted[:, None], *(sums.unflatten(0, (-1, 2)) for sums in (at_pre[1:], at_post))], 1)
