"""The relation at every synapse of a network, and the scale that it gives the weight's gradient."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach, detach
from tracegrad.core.equations.scaling import SCALINGS

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
"""The quantiles of a distribution, by the names they have in tables."""

STATISTICS = ("mean", *QUANTILES)


def measure_relations(model: nn.Module, images: Tensor, **options: Any) -> dict[str, Tensor]:
    """The normalised relation R_hat (Eq. 6) at every synapse that gradient scaling would scale.

    They are those of a training step on `images`, taken on a copy of the model in training mode: weights, gradients,
    running statistics and random state stay as they are. Scaling that is attached already does not matter.

    Args:
        model: any network that `tracegrad.attach` takes.
        images: a batch of its inputs.
        options: those of `tracegrad.attach`, all but `record`.

    Returns:
        By the name of the synapse, [T, *weight.shape] for `time="per_step"`, else weight.shape.

    Raises:
        ValueError: as `tracegrad.attach`.
    """
    duplicate = copy.deepcopy(model).train()
    with suppress(ValueError):  # nothing is attached
        detach(duplicate)
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        attachment = attach(duplicate, images[:1], record=True, **options)
        duplicate(images).sum().backward()  # the relation is the same for every loss that all synapses reach
    return {name: attachment.relations[name] for name in dict(attachment.pairs)}


def scale(relation: Tensor, alpha: float, scaling: str = "linear") -> Tensor:
    """What each part of the gradient is multiplied by: alpha * R_hat + 1 - alpha for the linear scaling (Eq. 7).

    Args:
        relation: normalised, of any shape.
        alpha: strength of the scaling.
        scaling: a registered scaling; for one that is not proportional to the gradient, its value for a gradient of 1.
    """
    return SCALINGS[scaling](torch.ones_like(relation), relation, alpha)


def distribution(values: Tensor) -> dict[str, float]:
    """Mean and quantiles of all entries of a tensor, by the names in `STATISTICS`.

    Raises:
        ValueError: the tensor is empty.
    """
    if not values.numel():
        raise ValueError("an empty tensor has no distribution")
    entries = values.detach().double().cpu().numpy().ravel()  # NumPy's quantile has no limit of 2^24 entries
    quantiles = np.quantile(entries, list(QUANTILES.values()))
    return {"mean": float(entries.mean()), **dict(zip(QUANTILES, map(float, quantiles), strict=True))}


def kernel_mean(relation: Tensor, synapse: nn.Module) -> Tensor:
    """A relation as a picture: [outputs, inputs], the mean over time steps and kernel positions.

    Args:
        relation: of `measure_relations`.
        synapse: the layer that it belongs to.
    """
    shape = synapse.get_parameter("weight").shape
    return relation.reshape(-1, shape[0], shape[1], shape[2:].numel()).mean((0, 3))
