"""The firing rate of a network as a term of its loss: what saves spikes by itself, the rival of all else that does.

    L = objective + weight * r,    r = (sum of all spikes) / (T B N)

with N the neurons of all layers together: L1 regularisation of the activity, as snnTorch's `l1_rate_sparsity` and
Zenke's SpyTorch have it, but of the mean and not of the sum, so that a weight means the same for any network, batch
and T.

The surrogate gradient of r enters the network at every neuron. The weights' gradients are those of the whole loss: with
gradient scaling attached, the part that comes from r is scaled as the rest is.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.neurons import is_neuron, only_spikes, spikes_of


class FiringRate:
    """The spikes of the neurons of one forward pass, with their gradient."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._number = 0

    def add(self, spikes: Tensor) -> None:
        """Adds what a layer of neurons fired in one call, a tensor of any shape."""
        self._sums.append(spikes.sum(dtype=at_least_float32(spikes)))
        self._number += spikes.numel()

    @property
    def mean(self) -> Tensor:
        """r, spikes per neuron, step and example; spikes of another height than 1 count by it.

        Raises:
            ValueError: no neuron was called.
        """
        if not self._number:
            raise ValueError("no neuron fired or stayed silent yet: call the network inside the block")
        return torch.stack(self._sums).sum() / self._number


@contextmanager
def firing_rate(model: nn.Module) -> Generator[FiringRate]:
    """Keeps the firing rate of what `model` computes inside the block.

    Example:
        with firing_rate(model) as rate:
            outputs = model(images)
        (objective(outputs, target) + 0.1 * rate.mean).backward()

    Args:
        model: any network whose neurons are registered (`tracegrad.register_neuron`).

    Raises:
        ValueError: the model holds no neuron.
    """
    neurons = [module for module in model.modules() if is_neuron(module)]
    if not neurons:
        raise ValueError(f"{type(model).__name__} holds no spiking neuron, so it has no firing rate to be lowered")
    rate = FiringRate()
    handles = [neuron.register_forward_hook(only_spikes(partial(_add, rate))) for neuron in neurons]
    try:
        yield rate
    finally:
        for handle in handles:
            handle.remove()


def _add(rate: FiringRate, _module: nn.Module, _inputs: Any, output: Any) -> None:
    rate.add(spikes_of(output))
