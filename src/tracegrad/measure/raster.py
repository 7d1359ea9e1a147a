"""Spikes of chosen neurons at the two ends of a synapse: the material of a spike raster."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach, detach
from tracegrad.core.equations.layers import geometry_of
from tracegrad.core.neurons import is_neuron


@dataclass(frozen=True)
class End:
    """Some neurons at one end of a synapse.

    Args:
        spikes: [T, n], bool.
        places: [n, D], where each neuron is: channel, row and column in a layer of images.
    """

    spikes: Tensor
    places: Tensor


@dataclass(frozen=True)
class Raster:
    """Spikes at both ends of a synapse for one image; a weight connects the first neuron of each end.

    Args:
        pre: neurons before the synapse.
        post: neurons behind it.
    """

    pre: End
    post: End


def record_rasters(model: nn.Module, image: Tensor, neurons: int = 12) -> dict[str, Raster]:
    """Records the spikes of some neurons at both ends of every paired synapse, on a copy in evaluation mode.

    Chosen are a connected pair of neurons that fire at about half of the steps, where a trace shows most, and others
    evenly among those that fire.

    Args:
        model: any network that `tracegrad.attach` takes.
        image: a batch of one input.
        neurons: how many neurons at each end at most.

    Returns:
        By the name of the synapse; of one that is called more than once, its last call.

    Raises:
        ValueError: as `tracegrad.attach`.
    """
    duplicate = _plain_copy(model)
    attachment = attach(duplicate, image)
    attachment.detach()
    post_of = dict(attachment.pairs)
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        inputs[name], outputs[name] = arguments[0], output

    for name in {*post_of, *post_of.values()}:
        duplicate.get_submodule(name).register_forward_hook(partial(keep, name))
    with torch.no_grad():
        duplicate(image)
        return {
            synapse: _raster(
                duplicate.get_submodule(synapse), inputs[synapse], outputs[synapse], outputs[neuron], neurons
            )
            for synapse, neuron in post_of.items()
        }


def count_neurons(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The number of neurons in every neuron layer, by module name, from a forward pass of a copy of the model.

    A layer that is called more than once counts every call, as `count_spikes` does.

    Args:
        model: the network.
        image: a batch of one input.
    """
    duplicate = _plain_copy(model)
    counts: dict[str, int] = {}

    def count(name: str, module: nn.Module, arguments: Any, spikes: Tensor) -> None:
        counts[name] = counts.get(name, 0) + spikes[0].numel()

    for name, module in duplicate.named_modules():
        if is_neuron(module):
            module.register_forward_hook(partial(count, name))
    with torch.no_grad():
        duplicate(image)
    return counts


def _plain_copy(model: nn.Module) -> nn.Module:
    duplicate = copy.deepcopy(model).eval()
    with suppress(ValueError):  # no scaling is attached
        detach(duplicate)
    return duplicate


def _raster(synapse: nn.Module, x: Tensor, current: Tensor, spikes: Tensor, neurons: int) -> Raster:
    time_steps = len(spikes)
    pre, post = x.reshape(time_steps, -1) != 0, spikes.reshape(time_steps, -1) != 0
    chosen_post = _most_telling(post, torch.ones_like(post[0]))
    place = torch.zeros_like(current[:1]).flatten()
    place[chosen_post] = 1
    weight = torch.ones_like(synapse.get_parameter("weight"))
    reach = geometry_of(synapse).grad_input(place.view_as(current[:1]), x[:1], weight).flatten() != 0
    chosen_pre = _most_telling(pre, reach)
    return Raster(_end(pre, chosen_pre, x.shape[1:], neurons), _end(post, chosen_post, current.shape[1:], neurons))


def _most_telling(spikes: Tensor, allowed: Tensor) -> int:
    """The neuron that fires at nearest to half of the steps; of several, the one in the middle of the layer."""
    count = spikes.sum(0)
    distance = (count - len(spikes) / 2).abs() + len(spikes) * (count == 0)
    distance[~allowed.bool()] = torch.inf
    best = (distance == distance.min()).nonzero().flatten()
    return int(best[len(best) // 2])


def _end(spikes: Tensor, chosen: int, shape: torch.Size, neurons: int) -> End:
    firing = spikes.any(0)
    firing[chosen] = False
    others = firing.nonzero().flatten()
    evenly = torch.linspace(0, len(others) - 1, min(neurons - 1, len(others))).long()
    indices = torch.cat([torch.tensor([chosen], device=others.device), others[evenly.to(others.device)]])
    return End(spikes[:, indices].cpu(), torch.stack(torch.unravel_index(indices, shape), 1).cpu())
