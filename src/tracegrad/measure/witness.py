"""What happens at the synapses of a network in one backward pass: spikes at both ends, and dL/dz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.attaching.installation import installation_of
from tracegrad.core.calls import Call
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.step_calls import StepCall
from tracegrad.measure.plain_copy import plain_copy


@dataclass(frozen=True)
class SeenUse:
    """One use of a synapse, over a whole sequence.

    Attributes:
        synapse: its name.
        geometry: how it connects its ends.
        weight: only its shape is used.
        pre: the spikes that came in, [T, N, ...].
        post: those of the neurons behind it, in the shape of its current.
        gradient: dL/dz, likewise.
    """

    synapse: str
    geometry: Geometry
    weight: Tensor
    pre: Tensor
    post: Tensor
    gradient: Tensor


_Parts = dict[tuple[str, int], list[tuple[int, Activity, Tensor]]]


def watch_backward(
    model: nn.Module, loss_of: Callable[[nn.Module], Tensor], example: Any, **options: Any
) -> list[SeenUse]:
    """The uses of the synapses that scaling would scale, in one backward pass on a copy of a model in training mode.

    Args:
        model: any network that `tracegrad.attach` takes; it is left as it is.
        loss_of: runs the model and returns its loss.
        example: what the model is called with.
        options: those of `tracegrad.attach` that say which synapses are scaled.

    Raises:
        ValueError: as `tracegrad.attach`.
    """
    duplicate = plain_copy(model).train()
    attach(duplicate, example, **options)
    installation = installation_of(duplicate)
    assert installation is not None  # noqa: S101 - it was attached
    parts: _Parts = {}
    for synapse in installation.synapses.values():
        synapse.rule = replace(synapse.rule, factor=1.0)  # what is watched needs no relation
        synapse.witness = partial(_keep, parts)
    with torch.enable_grad():
        loss_of(duplicate).backward()
    return [_joined(name, sorted(steps, key=lambda step: step[0])) for (name, _), steps in parts.items()]


def _keep(parts: _Parts, call: Call, activity: Activity, gradient: Tensor) -> None:
    """Calls of one step belong together by their sequence; a call of all steps is one by itself."""
    whole, first = (call.sequence, call.first) if isinstance(call, StepCall) else (call, 0)
    parts.setdefault((call.synapse.name, id(whole)), []).append((first, activity, gradient.detach()))


def _joined(name: str, steps: list[tuple[int, Activity, Tensor]]) -> SeenUse:
    first = steps[0][1]
    ends = (
        torch.cat([activity.pre.spikes for _, activity, _ in steps]),
        torch.cat([activity.post.spikes for _, activity, _ in steps]),
        torch.cat([gradient for _, _, gradient in steps]).to(first.pre.spikes),
    )
    return SeenUse(name, first.geometry, first.weight.detach(), *ends)
