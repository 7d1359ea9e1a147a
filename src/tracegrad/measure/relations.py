"""The relation at every synapse of a network, and the factor by which it scales the weight's gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.measure.plain_copy import plain_copy

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
"""The quantiles of a distribution, by their names in tables."""

STATISTICS = ("mean", *QUANTILES)


def measure_relations(model: nn.Module, images: Tensor, **options: Any) -> dict[str, Tensor]:
    """The normalised relation R_hat (Eq. 6) at every synapse that gradient scaling would scale.

    The relations of a training step on `images`, computed on a copy of the model in training mode: weights, gradients,
    running statistics and the random state do not change. Scaling that is already attached is ignored.

    Args:
        model: any network that `tracegrad.attach` takes.
        images: a batch of its inputs: images [B, C, H, W], frames [T, B, C, H, W] or sequences [T, B, C].
        options: those of `tracegrad.attach` except `record`.

    Returns:
        By the name of the synapse, [T, *weight.shape] for `time="per_step"`, else weight.shape; nothing of a control
        that has no relation.

    Raises:
        ValueError: as `tracegrad.attach`.
    """
    duplicate = plain_copy(model).train()
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        example = images[:, :1] if images.dim() in (3, 5) else images[:1]
        attachment = attach(duplicate, example, record=True, **options)
        duplicate(images).sum().backward()  # the relation does not depend on the loss
    return {name: attachment.relations[name] for name in dict(attachment.pairs) if name in attachment.relations}


def scale(relation: Tensor, alpha: float, scaling: str = "linear") -> Tensor:
    """The factor for each entry of the gradient: alpha * R_hat + 1 - alpha for the linear scaling (Eq. 7).

    Args:
        relation: normalised, of any shape.
        alpha: strength of the scaling.
        scaling: a registered scaling. If it is not proportional to the gradient, its value for a gradient of 1.
    """
    return SCALINGS[scaling].function(torch.ones_like(relation), relation, alpha)


def distribution(values: Tensor) -> dict[str, float]:
    """Mean and quantiles of all entries of a tensor, by the names in `STATISTICS`; all NaN if an entry is NaN.

    Quantiles between two entries are interpolated linearly, the default of `numpy.quantile` and `torch.quantile`.

    Raises:
        ValueError: the tensor is empty.
    """
    if not values.numel():
        raise ValueError("an empty tensor has no distribution")
    entries = values.detach().cpu().double().flatten().sort().values  # torch.quantile takes at most 2^24 entries
    if entries[-1].isnan():
        return dict.fromkeys(STATISTICS, math.nan)
    quantiles = {name: _quantile(entries, q).item() for name, q in QUANTILES.items()}
    return {"mean": entries.mean().item(), **quantiles}


def _quantile(ascending: Tensor, q: float) -> Tensor:
    """The entry at place q (n - 1) of n sorted ones, from 0; between two entries, their linear interpolation."""
    place = q * (len(ascending) - 1)
    below = math.floor(place)
    return torch.lerp(ascending[below], ascending[math.ceil(place)], place - below)


def kernel_mean(relation: Tensor, synapse: nn.Module) -> Tensor:
    """A relation as a picture [outputs, inputs]: the mean over time steps and kernel positions.

    Args:
        relation: from `measure_relations`.
        synapse: its layer.
    """
    shape = synapse.get_parameter("weight").shape
    return relation.reshape(-1, shape[0], shape[1], shape[2:].numel()).mean((0, 3))
