"""Gradient scalings, Eq. 7 of Park et al. (2023)."""

from collections.abc import Callable

from torch import Tensor

from tracegrad.core.registry import Registry

Scaling = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient, normalised relation, alpha) -> scaled gradient, all shaped alike."""

SCALINGS: Registry[Scaling] = Registry("scaling")


def register_scaling(name: str) -> Callable[[Scaling], Scaling]:
    """Decorator that makes a function `(gradient, relation, alpha) -> gradient` available as `scaling=name`.

    The function sees tensors shaped like the synapse's weight: for `time="per_step"` it is called once per step with
    that step's part of the gradient, else once.

    Raises:
        ValueError: the name is taken.
    """
    return lambda scaling: SCALINGS.register(name, scaling)


@register_scaling("linear")
def linear(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """g(G, R) = alpha * G * R + (1 - alpha) * G (Eq. 7)."""
    return gradient * (alpha * relation + (1 - alpha))
