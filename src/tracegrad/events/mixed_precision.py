"""Sums of products under autocast, also on CPUs that know no bfloat16.

PyTorch sums products of bfloat16 in plain loops there, ten to a hundred times as slowly as in float32. So they are
summed in float32 and rounded once, which is what processors that know bfloat16 do, too.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, cast

import torch
from torch import Tensor

CPU_HAS_BFLOAT16: bool = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether oneDNN, which computes PyTorch's convolutions and matrix products, knows bfloat16 on this processor."""

P = ParamSpec("P")


def current_type(x: Tensor) -> torch.dtype:
    """The type of a current of `x`: that of x, or what autocast makes of it."""
    autocasts = x.dtype != torch.float64 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return torch.get_autocast_dtype("cpu") if autocasts else x.dtype


def sums_products(operation: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorates what sums products by operations that autocast casts; the first argument is one of the factors."""

    @wraps(operation)
    def summed(*arguments: P.args, **named: P.kwargs) -> Tensor:
        x = next(argument for argument in arguments if isinstance(argument, Tensor))
        if not is_slow(current_type(x), x):
            return operation(*arguments, **named)
        wide = [one.bfloat16().float() if isinstance(one, Tensor) else one for one in arguments]
        with torch.autocast("cpu", enabled=False):
            return cast("Callable[..., Tensor]", operation)(*wide, **named).bfloat16()

    return summed


def is_slow(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether PyTorch sums products in `dtype` in plain loops, on the device of x."""
    return dtype == torch.bfloat16 and x.device.type == "cpu" and not CPU_HAS_BFLOAT16
