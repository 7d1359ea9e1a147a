"""Surrogate gradients: what back-propagation takes for the derivative of the Heaviside step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tracegrad.core.registry import Registry

Surrogate = Callable[[Tensor], Tensor]
"""Distance of the membrane from the threshold, u - v_th -> ds/du, elementwise."""

SURROGATES: Registry[Surrogate] = Registry("surrogate")


def register_surrogate(name: str) -> Callable[[Surrogate], Surrogate]:
    """Decorator that makes a function of u - v_th available as `surrogate=name`; it returns ds/du, elementwise.

    Raises:
        ValueError: the name is taken.
    """
    return lambda surrogate: SURROGATES.register(name, surrogate)


@register_surrogate("boxcar")
def boxcar(distance: Tensor) -> Tensor:
    """1 where |u - v_th| <= 0.5, else 0 (Wu et al. 2018; the default)."""
    return (distance.abs() <= 0.5).to(distance.dtype)


@register_surrogate("narrow_boxcar")
def narrow_boxcar(distance: Tensor) -> Tensor:
    """1 where |u - v_th| <= 0.2, else 0 (Yang et al. 2022)."""
    return (distance.abs() <= 0.2).to(distance.dtype)


@register_surrogate("triangle")
def triangle(distance: Tensor) -> Tensor:
    """max(0, 1 - |u - v_th|) (Deng et al. 2022)."""
    return (1 - distance.abs()).clamp(min=0)


@register_surrogate("arctan")
def arctan(distance: Tensor) -> Tensor:
    """1 / (1 + (pi (u - v_th))^2) (Fang et al. 2021)."""
    return 1 / (1 + (math.pi * distance).square())


@register_surrogate("sigmoid")
def sigmoid(distance: Tensor) -> Tensor:
    """The slope of a logistic curve, 4 p (1 - p) with p the sigmoid of 4 (u - v_th); 1 at the threshold."""
    activation = torch.sigmoid(4 * distance)
    return 4 * activation * (1 - activation)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.surrogate = surrogate
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.surrogate(distance), None


def spike(distance: Tensor, surrogate: Surrogate) -> Tensor:
    """H(u - v_th) with H(0) = 1 (Eq. 3); its gradient is the surrogate's.

    Args:
        distance: u - v_th, any shape.
        surrogate: u - v_th -> ds/du.
    """
    return _Spike.apply(distance, surrogate)  # pyright: ignore[reportReturnType]
