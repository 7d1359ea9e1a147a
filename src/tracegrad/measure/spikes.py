"""Counts the spikes of a network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron, only_spikes, spikes_of


class SpikeCounter:
    """Spikes that the neurons of a model fired, by the module name of the neuron.

    A neuron that is called more than once counts every call. A spike is an output other than zero, whatever its
    height.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, spikes: Tensor) -> None:
        """Adds the spikes of one call, a tensor of any shape, to the neuron `name`."""
        count = torch.count_nonzero(spikes.detach())
        self._counts[name] = self._counts[name] + count if name in self._counts else count

    @property
    def per_layer(self) -> dict[str, int]:
        """Spikes of each neuron layer over all steps and images, in the order of their first call."""
        return {name: int(count) for name, count in self._counts.items()}

    @property
    def total(self) -> int:
        """Spikes of all neuron layers together."""
        return sum(self.per_layer.values())


@contextmanager
def count_spikes(model: nn.Module) -> Generator[SpikeCounter]:
    """Counts every spike that the neurons of `model` fire inside the block.

    Example:
            with count_spikes(model) as spikes:
                model(images)
            spikes.total / len(images)  # spikes per image over all layers and time steps

    Args:
        model: any network whose neurons are registered (`tracegrad.register_neuron`).

    Yields:
        The counter; it holds what was counted so far.

    Raises:
        ValueError: the model holds no neuron.
    """
    neurons = {name: module for name, module in model.named_modules() if is_neuron(module)}
    if not neurons:
        raise ValueError(f"{type(model).__name__} holds no spiking neuron; register its neurons with register_neuron")
    counter = SpikeCounter()

    def count(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        counter.add(name, spikes_of(output))

    handles = [neuron.register_forward_hook(only_spikes(partial(count, name))) for name, neuron in neurons.items()]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()
