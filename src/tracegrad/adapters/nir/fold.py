"""Folds norms and averages into the weights next to them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Synapse = nn.Conv1d | nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d
Array = NDArray[np.floating]


def folded(synapse: Synapse, norm: Norm | None, factor: float) -> tuple[Array, Array | None]:
    """Weight and bias of a synapse that reads `factor` times its input and is followed by a norm in evaluation mode.

    norm(W x + b) = scale * (W x + b - mean) + beta per channel, with scale = gamma / sqrt(var + eps); computed in
    float64 and rounded once to the precision of the weights (float32 for bfloat16, which NumPy does not have).

    Raises:
        ValueError: the norm keeps no running statistics.
    """
    weight = synapse.weight.detach().double() * factor
    bias = None if synapse.bias is None else synapse.bias.detach().double()
    if norm is not None:
        scale, shift = _affine(norm)
        weight = weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
        bias = shift if bias is None else bias * scale + shift
    dtype = synapse.weight.dtype
    return _array(weight, dtype), None if bias is None else _array(bias, dtype)


def _affine(norm: Norm) -> tuple[Tensor, Tensor]:
    """Scale and shift with norm(x) = scale * x + shift."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("keeps no running statistics to fold into weights")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if not norm.affine:
        return scale, -norm.running_mean.double() * scale
    scale = scale * norm.weight.detach().double()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _array(values: Tensor, dtype: torch.dtype) -> Array:
    return values.to(torch.float32 if dtype == torch.bfloat16 else dtype).contiguous().cpu().numpy()
