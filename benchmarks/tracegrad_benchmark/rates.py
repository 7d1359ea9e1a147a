"""Firing rates of a network of any library: read, and set by its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron, spikes_of

TRIALS = 12


def firing_rates(network: nn.Module, run: Callable[[], object]) -> list[float]:
    """The rate of each layer of neurons in one forward pass, in the order in which they fire; none without neurons."""
    calls = of_each_layer(network, run, lambda spikes: spikes.mean(dtype=torch.float32))
    return [float(rates.mean()) for rates in calls]


def of_each_layer(network: nn.Module, run: Callable[[], object], read: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What `read` makes of the spikes of each call, stacked for each layer of neurons, in the order in which they fire.

    Args:
        network: with neurons.
        run: one forward pass.
        read: of the spikes of one call.
    """
    found: dict[nn.Module, list[Tensor]] = {}

    def note(neuron: nn.Module, _: Any, output: Any) -> None:
        found.setdefault(neuron, []).append(read(spikes_of(output).detach()))

    with ExitStack() as stack, torch.no_grad():
        for neuron in neurons_of(network):
            stack.callback(neuron.register_forward_hook(note).remove)
        run()
    return [torch.stack(calls) for calls in found.values()]


def set_mean_rate(network: nn.Module, rate: float, run: Callable[[], object]) -> None:
    """Multiplies all thresholds by one number, so that the mean of the layers' rates is `rate`.

    Norms stay as they are: they do not know of it.

    Args:
        network: with neurons.
        rate: in (0, 1).
        run: one forward pass.
    """
    low, high, factor = 0.1, 20.0, 1.0
    for _ in range(TRIALS):
        wanted = (low * high) ** 0.5
        for neuron in neurons_of(network):
            _multiply_threshold(neuron, wanted / factor)
        factor = wanted
        rates = firing_rates(network, run)
        low, high = (factor, high) if sum(rates) > rate * len(rates) else (low, factor)


@contextmanager
def momentum(network: nn.Module, value: float) -> Generator[None]:
    """The momentum of all norms' running statistics inside of the block: with 1 they become those of the next batch."""
    norms: list[Any] = [module for module in network.modules() if hasattr(module, "running_mean")]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = value
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.momentum = own


def neurons_of(network: nn.Module) -> Iterator[nn.Module]:
    """Its neurons."""
    return (module for module in network.modules() if is_neuron(module))


def _multiply_threshold(neuron: Any, factor: float) -> None:
    if hasattr(neuron, "v_threshold"):  # SpikingJelly's
        neuron.v_threshold *= factor
    elif hasattr(neuron, "p"):  # Norse's
        neuron.p = neuron.p._replace(v_th=neuron.p.v_th * factor)
    else:  # snnTorch's and ours
        neuron.threshold = neuron.threshold * factor
