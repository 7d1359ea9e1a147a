"""The layer of a node, and the shapes that it takes and gives."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import nir
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracegrad.adapters.nir.fields import integers, short, weights
from tracegrad.adapters.nir.units import shape_of

Shape = tuple[int, ...]
"""Of one time step of one sample: (C, H, W), (C, L) or (N,)."""

_DIMENSIONS: dict[type[nn.Module], int] = {nn.Conv2d: 3, nn.AvgPool2d: 3, nn.Conv1d: 2}


def layer_of(node: nir.NIRNode) -> nn.Module:
    """The layer of a node that is no neuron.

    Raises:
        ValueError: a node of another kind, or with fields that make no layer.
    """
    if isinstance(node, nir.Affine):
        return _linear(weights(node.weight, "weight", (None, None)), node)
    if isinstance(node, nir.Linear):
        return _linear(weights(node.weight, "weight", (None, None)), None)
    if isinstance(node, nir.Conv1d):
        return _convolution(nn.Conv1d, node, 1)
    if isinstance(node, nir.Conv2d):
        return _convolution(nn.Conv2d, node, 2)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return nn.AvgPool2d(
            _pair(node.kernel_size, "kernel_size", 1),
            _pair(node.stride, "stride", 1),
            _pair(node.padding, "padding", 0),
            divisor_override=divisor,
        )
    if isinstance(node, nir.Flatten):
        start, end = (integers(getattr(node, field), field, 1)[0] for field in ("start_dim", "end_dim"))
        return nn.Flatten(start + (start >= 0), end + (end >= 0))  # ours have a batch dimension before the sample's
    raise ValueError("has no layer in tracegrad")


def _pair(value: Any, field: str, least: int) -> tuple[int, int]:
    first, second = integers(value, field, 2, least)
    return first, second


def _linear(weight: Tensor, node: nir.Affine | None) -> nn.Linear:
    bias = None if node is None else weights(node.bias, "bias", (len(weight),))
    return _filled(partial(nn.Linear, weight.shape[1], weight.shape[0]), weight, bias)


def _convolution(kind: Any, node: nir.Conv1d | nir.Conv2d, dims: int) -> Any:
    weight = weights(node.weight, "weight", (None,) * (dims + 2))
    bias = weights(node.bias, "bias", (len(weight),))
    padding: Any = node.padding.decode(errors="replace") if isinstance(node.padding, bytes) else node.padding
    if not isinstance(padding, str):
        padding = integers(node.padding, "padding", dims, least=0)
    elif padding not in ("same", "valid"):
        raise ValueError(f"has padding {short(padding)}; it must be 'same', 'valid' or whole numbers of at least 0")
    stride, dilation = (integers(getattr(node, field), field, dims, least=1) for field in ("stride", "dilation"))
    groups = integers(node.groups, "groups", 1, least=1)[0]
    make = partial(
        kind, weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]), stride, padding, dilation, groups
    )
    return _filled(make, weight, bias if bias.any() else None)


def _filled(make: partial[Any], weight: Tensor, bias: Tensor | None) -> Any:
    layer = make(bias=bias is not None, dtype=weight.dtype, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(weight.dtype))
    return layer


def shape_after(layer: nn.Module, node: nir.NIRNode, shape: Shape) -> Shape:
    """The shape that a layer gives for one that it gets.

    Raises:
        ValueError: it cannot take that shape.
    """
    if isinstance(node, nir.LIF | nir.IF):
        found = shape_of(node)
        if math.prod(found) != 1 and found != shape:
            raise ValueError(f"has values of shape {list(found)}, and gets currents of shape {list(shape)}")
        return shape
    dims = _DIMENSIONS.get(type(layer))
    if dims is not None and len(shape) != dims:
        raise ValueError(f"takes {dims} dimensions, and gets the shape {list(shape)}")
    wanted = getattr(layer, "in_channels", None), getattr(layer, "in_features", None)
    for kind, size, found in zip(("channels", "features"), wanted, (shape[:1], shape[-1:]), strict=True):
        if size is not None and found != (size,):
            raise ValueError(f"takes {size} {kind}, and gets the shape {list(shape)}")
    parameters = {name: parameter.to("meta") for name, parameter in layer.named_parameters()}
    dtype = next(layer.parameters(), torch.empty(())).dtype
    try:  # of two samples, so that the batch shows; on "meta" nothing is computed
        result = functional_call(layer, parameters, torch.empty(2, *shape, dtype=dtype, device="meta"))
    except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise ValueError(f"cannot take the shape {list(shape)}: {error}") from None
    if len(result.shape) < 2 or result.shape[0] != 2:
        raise ValueError(f"makes {list(result.shape)} of two samples {list(shape)}: it must leave the batch as it is")
    return tuple(result.shape[1:])
