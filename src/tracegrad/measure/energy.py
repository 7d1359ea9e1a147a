"""Synaptic operations of a network, and an estimate of the energy that they take.

    E = E_MAC * (multiply-accumulates) + E_AC * (accumulates)

A spike makes a synapse add its weight to the currents of all neurons that it leads to: one accumulate for each. Any
other input is multiplied by the weight first: one multiply-accumulate for each connection. Biases, norms, pools and the
neurons themselves are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracegrad.core.equations.functional import SynapseCall
from tracegrad.core.pairing.drives import refuse_inputs
from tracegrad.core.pairing.example import ExampleRun
from tracegrad.core.pairing.graph import Use
from tracegrad.core.synapses import holds_weights, install_gate, is_one_to_one, is_plain, weight_names
from tracegrad.measure.plain_copy import plain_copy

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

    def __truediv__(self, number: int) -> Operations:
        return Operations(self.macs / number, self.acs / number)

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
        images: [B, C, H, W], frames [T, B, C, H, W] or sequences [T, B, C].

    Returns:
        By the synapse's name, in the order of the first calls, the mean over the images.

    Raises:
        ValueError: the model uses no convolution or linear layer.
    """
    duplicate = plain_copy(model).eval()
    of_frames = images.dim() in (3, 5)
    spiking = _driven_by_spikes(duplicate, images[:, :1] if of_frames else images[:1])
    counts: dict[str, list[Operations]] = {}

    def count(name: str, call: SynapseCall) -> Tensor:
        current = call.geometry.current(call.x, call.weight, call.bias)
        if is_one_to_one(call):  # a gain, or a part of a norm
            return current
        calls = counts.setdefault(name, [])
        does_add = (name, len(calls)) in spiking
        entries = (call.x != 0).to(call.x.dtype) if does_add else torch.ones_like(call.x)
        connections = _connections(call, entries)
        calls.append(Operations(acs=connections) if does_add else Operations(macs=connections))
        return current

    for name, module in duplicate.named_modules():
        if is_plain(module) or holds_weights(module):
            install_gate(name, module, count, weight_names(duplicate, name))
    with torch.no_grad():
        duplicate(images)
    if not counts:
        raise ValueError(f"{type(model).__name__} uses no convolution or linear layer to count operations of")
    number = images.shape[1] if of_frames else len(images)
    return {name: sum(calls, Operations()) / number for name, calls in counts.items()}


def _driven_by_spikes(model: nn.Module, image: Tensor) -> set[Use]:
    """The calls of synapses whose input comes from neurons alone."""
    run = ExampleRun(model)
    run.run((image,), {})
    return {use for use, reason in refuse_inputs(run, spiking_input=False).items() if reason is None}


def _connections(call: SynapseCall, entries: Tensor) -> float:
    """How many connections the entries that are 1 have together: the synapse's current, were all its weights 1."""
    ones = torch.ones_like(call.weight)
    return float(call.geometry.current(entries.to(ones.dtype), ones, None).sum(dtype=torch.float64))
