"""Synaptic operations of a network, and an estimate of the energy that they take.

    E = E_MAC * (multiply-accumulates) + E_AC * (accumulates)

A spike makes a synapse add its weight to the currents of all neurons that it leads to: one accumulate for each. Any
other input is multiplied by the weight first: one multiply-accumulate for each connection. Biases, norms, pools and the
neurons themselves are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attach import detach
from tracegrad.core.graph import refuse_input
from tracegrad.core.synapse import Geometry, geometry_of, is_synapse
from tracegrad.core.trial import Trial

E_MAC = 4.6
"""Picojoules of a 32-bit floating-point multiplication and addition (3.7 + 0.9) in 45 nm at 0.9 V (Horowitz 2014)."""

E_AC = 0.9
"""Picojoules of a 32-bit floating-point addition in 45 nm at 0.9 V (Horowitz, Computing's energy problem, 2014)."""


@dataclass(frozen=True)
class Operations:
    """What a synapse does for one image, over all time steps.

    Args:
        macs: multiply-accumulates.
        acs: accumulates.
    """

    macs: float = 0.0
    acs: float = 0.0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.macs + other.macs, self.acs + other.acs)

    @property
    def energy(self) -> float:
        """The estimate in picojoules."""
        return E_MAC * self.macs + E_AC * self.acs


def measure_operations(model: nn.Module, images: Tensor) -> dict[str, Operations]:
    """Counts the operations of every synapse, on a copy in evaluation mode.

    A synapse whose input comes from neurons alone, pooled or added up or not, does one accumulate for each entry
    other than zero of its input, whatever the height, and each connection that this entry has, so that borders count
    as they are. Every other synapse, the first layer and all of a ReLU network, does a multiply-accumulate for each
    connection of each entry. Counted is what is computed: a current that is the same at every step, once.

    Args:
        model: any network; neurons that are registered (`tracegrad.register_neuron`) make spikes.
        images: [B, C, H, W], or frames [T, B, C, H, W].

    Returns:
        By the synapse's name, in the order of the first calls, the mean over the images.

    Raises:
        ValueError: the model holds no convolution or linear layer, or one whose padding is not zeros.
    """
    duplicate = copy.deepcopy(model).eval()
    with suppress(ValueError):  # no scaling is attached
        detach(duplicate)
    synapses = {name: module for name, module in duplicate.named_modules() if is_synapse(module)}
    if not synapses:
        raise ValueError(f"{type(model).__name__} holds no nn.Conv1d, nn.Conv2d or nn.Linear to count operations of")
    of_frames = images.dim() == 5
    trial = Trial(duplicate)
    data = trial.run((images[:, :1] if of_frames else images[:1],))
    spiking = {use for use, node in trial.inputs.items() if refuse_input(node, data, spiking_input=False) is None}
    counts: dict[str, list[float]] = {}

    def count(name: str) -> Callable[..., None]:
        geometry = geometry_of(synapses[name])

        def counting(synapse: nn.Module, arguments: tuple[Tensor, ...], _: Any) -> None:
            calls = counts.setdefault(name, [])
            does_add = (name, len(calls)) in spiking
            x = arguments[0]
            calls.append(_connections(geometry, (x != 0).to(x.dtype) if does_add else torch.ones_like(x), synapse))

        return counting

    for name, synapse in synapses.items():
        synapse.register_forward_hook(count(name))
    with torch.no_grad():
        duplicate(images)
    number = images.shape[1] if of_frames else len(images)
    found = {name: Operations() for name in counts}
    for name, calls in counts.items():
        for call, operations in enumerate(calls):
            each = operations / number
            found[name] += Operations(acs=each) if (name, call) in spiking else Operations(macs=each)
    return found


def _connections(geometry: Geometry, entries: Tensor, synapse: nn.Module) -> float:
    """How many connections the entries that are 1 have together: the synapse's current, were all its weights 1."""
    ones = torch.ones_like(synapse.get_parameter("weight"))
    return float(geometry.current(entries.to(ones.dtype), ones, None).sum(dtype=torch.float64))
