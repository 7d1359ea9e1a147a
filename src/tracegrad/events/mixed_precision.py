"""Sums of products under autocast, also on CPUs that know no bfloat16.

PyTorch sums products of bfloat16 in plain loops there, ten to a hundred times as slowly as in float32. So they are
summed in float32 and rounded once, which is what processors that know bfloat16 do, too.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

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
        if not _is_slow(current_type(x), x):
            return operation(*arguments, **named)
        wide = [one.bfloat16().float() if isinstance(one, Tensor) else one for one in arguments]
        with torch.autocast("cpu", enabled=False):
            return _rounded(cast("Callable[..., Found]", operation)(*wide, **named))

    return summed


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, operation: Sequence[Any], wanted: list[bool]
) -> tuple[Tensor, ...]:
    """The gradients of x, weight and bias, None where they are not `wanted`; autocast leaves this operation alone.

    Args:
        gradient: of the current.
        x: what is convolved; its values are not read for its own gradient alone.
        weight: its values are not read for its own gradient alone.
        operation: stride, padding, dilation, whether it is transposed, output padding, groups.
        wanted: which of the three.
    """
    backward = torch.ops.aten.convolution_backward
    if not _is_slow(gradient.dtype, gradient):
        return backward(gradient, x, weight, None, *operation, wanted)
    x, weight = (  # what is not read needs no copy
        end.float() if is_read else torch.empty_like(end, dtype=torch.float32)
        for end, is_read in ((x, wanted[1]), (weight, wanted[0]))
    )
    return _rounded(backward(gradient.float(), x, weight, None, *operation, wanted))


def _is_slow(dtype: torch.dtype, x: Tensor) -> bool:
    return dtype == torch.bfloat16 and x.device.type == "cpu" and not CPU_HAS_BFLOAT16


def _rounded(found: Found) -> Found:
    return tree_map_only(Tensor, Tensor.bfloat16, found)
