"""Gradient scalings, Eq. 7 of Park et al. (2023)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.core.equations.weight_layout import WeightLayout
from tracegrad.core.registry import Registry

ScalingFunction = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient, normalised relation, alpha) -> scaled gradient, all shaped alike."""


@dataclass(frozen=True)
class Scaling:
    """g(G, R_hat).

    Attributes:
        function: `(gradient, relation, alpha) -> gradient`.
        homogeneous: whether it is linear in the gradient, so that it may be applied to one part after another.
        outputs_first: whether the function needs the outputs in dimension 0, whatever the weight's layout.
    """

    function: ScalingFunction
    homogeneous: bool = False
    outputs_first: bool = False

    def __call__(self, gradient: Tensor, relation: Tensor, alpha: float, layout: WeightLayout) -> Tensor:
        """The scaled gradient; `layout` is that of the weight."""
        if not self.outputs_first:
            return self.function(gradient, relation, alpha)
        ends = layout.outputs_first(gradient), layout.outputs_first(relation)
        return layout.as_weight(self.function(*ends, alpha), gradient.shape)


SCALINGS: Registry[Scaling] = Registry("scaling")


def register_scaling(
    name: str, *, homogeneous: bool = False, outputs_first: bool = False
) -> Callable[[ScalingFunction], ScalingFunction]:
    """Decorator that makes a function `(gradient, relation, alpha) -> gradient` available as `scaling=name`.

    The function sees tensors shaped like the synapse's weight: for `time="per_step"` it is called once per step with
    that step's part of the gradient, else once.

    Args:
        name: of the scaling.
        homogeneous: whether the function is linear in the gradient. Only then can it serve `time="mean"` and "final"
            where neurons are called step by step: each call of a synapse has a part of the gradient.
        outputs_first: whether the function needs the outputs in dimension 0, `[outputs, inputs, ...]`, where the weight
            has its inputs there (transposed convolutions, `x @ W`), too.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: ScalingFunction) -> ScalingFunction:
        SCALINGS.register(name, Scaling(function, homogeneous, outputs_first))
        return function

    return register


@register_scaling("linear", homogeneous=True)
def linear(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = alpha * G * R + (1 - alpha) * G (Eq. 7)."""
    return gradient * (alpha * relation + (1 - alpha))


@register_scaling("exponential", homogeneous=True)
def exponential(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = G exp(alpha R): never turns a gradient's sign, whatever the relation."""
    return gradient * torch.exp(alpha * relation)


@register_scaling("norm_preserving", outputs_first=True)
def norm_preserving(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """`linear`, then multiplied by |G| / |g(G)| for each output, in dimension 0: directions change, lengths do not."""
    scaled = linear(gradient, relation, alpha)
    rest = tuple(range(1, gradient.dim()))
    before, after = (torch.linalg.vector_norm(x, dim=rest, keepdim=True) for x in (gradient, scaled))
    return scaled * torch.where(after > 0, before / torch.where(after > 0, after, 1), 1)
