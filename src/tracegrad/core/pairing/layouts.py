"""Where time is in a synapse's current, read off the places at which its elements reach the neuron."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from tracegrad.core.pairing.example import SeenSynapse
from tracegrad.core.time_layout import SINGLE_STEP, TimeLayout


@dataclass(frozen=True)
class Alignment:
    """How a synapse's current and the steps of a neuron belong together.

    Attributes:
        layout: where time is in the current.
        step: at which step all of it reaches the neuron; None if it holds all steps.
    """

    layout: TimeLayout
    step: int | None = None


def numbered(shape: Size, layout: TimeLayout, time_steps: int) -> Tensor:
    """The place in [T, B, ...] of each element of a tensor of this shape, in this layout."""
    in_time = layout.split(torch.empty(shape, device="meta"), time_steps).shape
    return layout.merge(torch.arange(shape.numel()).reshape(in_time)).reshape(shape)


def align(seen: SeenSynapse, places: Tensor, size: int, time_steps: int, neuron: TimeLayout) -> Alignment | str:
    """How the elements of a current lie in time, or why they are not the neuron's one by one.

    Args:
        seen: the call of the synapse.
        places: shaped like the current: where in the neuron's [T, B, ...] each of its elements arrives, -1 for nowhere.
        size: how many elements a current has that is the neuron's, T * B * ....
        time_steps: T.
        neuron: where time is in the neuron's input.
    """
    flat = places.flatten()
    per_step = size // time_steps
    if bool((flat < 0).any()) or len(flat) not in (size, per_step):
        return "a part of its current alone reaches the neuron"
    in_order = bool((flat == flat[0] + torch.arange(len(flat))).all())
    if len(flat) == per_step and (time_steps > 1 or neuron.dim is None):
        step, inside = divmod(int(flat[0]), per_step)
        return Alignment(SINGLE_STEP, step) if in_order and not inside else _PERMUTED
    candidates = list(_candidates(seen, time_steps, neuron))
    for layout in candidates:
        if torch.equal(layout.split(places, time_steps).flatten(), torch.arange(size)):
            if layout.dim and not layout.folded and _acts_along(seen, layout.dim):
                return "time is a dimension that it acts along, so its steps are not apart"
            return Alignment(layout)
    if not candidates:
        return f"its neuron takes T = {time_steps} steps, which no dimension of its current {list(places.shape)} holds"
    return _PERMUTED


_PERMUTED = "its current is permuted on its way to the neuron"


def _candidates(seen: SeenSynapse, time_steps: int, neuron: TimeLayout) -> Iterator[TimeLayout]:
    """Where time may be in a current; of what can't be told apart in one input, what the neuron has first."""
    shape = seen.shape
    if shape[0] == time_steps and sum(not _acts_along(seen, dim) for dim in range(len(shape))) > 1:
        yield TimeLayout(0)
    if shape[0] % time_steps == 0:
        yield TimeLayout(1 if neuron.dim == 1 else 0, folded=True)
        yield TimeLayout(0 if neuron.dim == 1 else 1, folded=True)
    is_position = seen.call.weight.dim() > 2
    dims = (dim for dim in range(1, len(shape)) if shape[dim] == time_steps)
    yield from (TimeLayout(dim, is_position=is_position) for dim in dims)


def _acts_along(seen: SeenSynapse, dim: int) -> bool:
    return seen.call.geometry.acts_along(dim, seen.call.x, seen.call.weight)
