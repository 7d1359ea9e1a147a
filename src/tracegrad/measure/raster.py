"""Spikes of chosen neurons at the two ends of a synapse: the material of a spike raster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.equations.layers import geometry_of
from tracegrad.core.neurons import is_neuron, spikes_of, steps_one_by_one, time_of
from tracegrad.measure.plain_copy import plain_copy


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
    duplicate = plain_copy(model).eval()
    attachment = attach(duplicate, image)
    attachment.detach()
    modules = dict(duplicate.named_modules())
    post_of = {synapse: neuron for synapse, neuron in attachment.pairs if synapse in modules}  # not bare parameters
    inputs: dict[str, list[Tensor]] = {name: [] for name in {*post_of, *post_of.values()}}
    outputs: dict[str, list[Tensor]] = {name: [] for name in inputs}

    def keep(name: str, module: nn.Module, arguments: tuple[Tensor, ...], output: Any) -> None:
        inputs[name].append(arguments[0])
        outputs[name].append(spikes_of(output))

    for name in inputs:
        modules[name].register_forward_hook(partial(keep, name))
    with torch.no_grad():
        duplicate(image)
        rasters: dict[str, Raster] = {}
        for name, neuron in post_of.items():
            spikes = _spikes(modules[neuron], outputs[neuron])
            x, current = (_over_time(modules[name], calls[name], len(spikes)) for calls in (inputs, outputs))
            rasters[name] = _raster(modules[name], x, current, spikes, neurons)
        return rasters


def _spikes(neuron: nn.Module, calls: list[Tensor]) -> Tensor:
    """The spikes of a neuron for one image, [T, n]: of all steps that it was called for, else of its last call."""
    layout, time_steps = time_of(neuron, calls[-1])
    if steps_one_by_one(neuron):
        return torch.cat([call.reshape(1, -1) for call in calls])
    return layout.split(calls[-1], time_steps).reshape(time_steps, -1)


def _over_time(synapse: nn.Module, calls: list[Tensor], time_steps: int) -> Tensor:
    """What went into a synapse or came out of it for one image, [T, ...]."""
    x = torch.cat(calls[-time_steps:]) if len(calls) >= time_steps and len(calls[-1]) == 1 else calls[-1]
    shape, steps = list(x.shape), 1
    while steps < time_steps:
        steps *= shape.pop(0)
    while len(shape) >= synapse.get_parameter("weight").dim() and shape[0] == 1:  # the batch
        shape.pop(0)
    return x.reshape(time_steps, *shape)


def count_neurons(model: nn.Module, image: Tensor) -> dict[str, int]:
    """The number of neurons in every neuron layer, by module name, from a forward pass of a copy of the model.

    A layer that is called more than once with all steps counts every call, as `count_spikes` does.

    Args:
        model: the network.
        image: a batch of one input.
    """
    duplicate = plain_copy(model).eval()
    counts: dict[str, int] = {}

    def count(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        spikes = spikes_of(output)
        _, time_steps = time_of(module, spikes)
        before = 0 if steps_one_by_one(module) else counts.get(name, 0)
        counts[name] = before + spikes.numel() // time_steps

    for name, module in duplicate.named_modules():
        if is_neuron(module):
            module.register_forward_hook(partial(count, name))
    with torch.no_grad():
        duplicate(image)
    return counts


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
