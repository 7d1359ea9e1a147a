"""Sums of products under autocast, also on CPUs that know no bfloat16.

PyTorch sums products of bfloat16 in plain loops there, ten to a hundred times as slowly as in float32. So they are
summed in float32 and rounded once, which is what processors that know bfloat16 do, too.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

CPU_HAS_BFLOAT16: bool = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether oneDNN, which computes PyTorch's convolutions and matrix products, knows bfloat16 on this processor."""

P = ParamSpec("P")
Found = TypeVar("Found", Tensor, tuple[Tensor, ...])


def current_type(x: Tensor) -> torch.dtype:
    """The type of a current of `x`: that of x, or what autocast makes of it."""
    autocasts = x.dtype != torch.float64 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if autocasts else x.dtype


def sums_products(operation: Callable[P, Found]) -> Callable[P, Found]:
    """Decorates what sums products by operations that autocast casts; the first argument is one of the factors."""

    @wraps(operation)
    def summed(*arguments: P.args, **named: P.kwargs) -> Found:
        x = next(argument for argument in arguments if isinstance(argument, Tensor))
        if _is_slow(current_type(x), x):
            with torch.autocast("cpu", enabled=False):
                return _in_float32(operation, *arguments, **named)
        return operation(*arguments, **named)

    return summed


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, operation: Sequence[Any], wanted: list[bool]
) -> tuple[Tensor, ...]:
    """The gradients of x, weight and bias, None where they are not `wanted`; autocast leaves this operation alone.

    Args:
        gradient: of the current.
        x: what is convolved; its values play no part in its own gradient.
        weight: the values play no part in their own gradient.
        operation: stride, padding, dilation, whether it is transposed, output padding, groups.
        wanted: which of the three.
    """
    backward = torch.ops.aten.convolution_backward
    arguments = gradient, x, weight, None, *operation, wanted
    return _in_float32(backward, *arguments) if _is_slow(gradient.dtype, gradient) else backward(*arguments)


def _is_slow(dtype: torch.dtype, x: Tensor) -> bool:
    return dtype == torch.bfloat16 and x.device.type == "cpu" and not CPU_HAS_BFLOAT16


def _in_float32(operation: Callable[..., Found], *arguments: Any, **named: Any) -> Found:
    """The same as in bfloat16, but for the rounding of the sums."""
    wide = [one.bfloat16().float() if isinstance(one, Tensor) else one for one in arguments]
    found = operation(*wide, **named)
    return tree_map_only(Tensor, Tensor.bfloat16, found)
