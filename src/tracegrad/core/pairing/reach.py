"""Which currents reach which steps of a neuron: its sequences in the example, and what their inputs lead back to."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.core.pairing.example import ExampleRun
from tracegrad.core.pairing.graph import ReachedCurrent, Use, kind_of, reached_currents, sources_of_spikes
from tracegrad.core.pairing.inside import driven_places
from tracegrad.core.pairing.layouts import Alignment, align, numbered
from tracegrad.core.pairing.steps import Aligned
from tracegrad.core.synapses import is_one_to_one
from tracegrad.core.time_layout import TimeLayout


@dataclass
class NeuronSequence:
    """The steps that a neuron takes in the example: in one call all of them, or in each call one.

    Attributes:
        neuron: its name.
        calls: of the neuron.
        time_steps: T.
        layout: where time is in its input.
        size: T * B * ..., how many elements its input has over all steps.
        fired: how many its spikes have.
    """

    neuron: str
    calls: list[Use]
    time_steps: int
    layout: TimeLayout
    size: int
    fired: int


def neuron_sequences(run: ExampleRun) -> Iterator[NeuronSequence]:
    """The sequences of all neurons, those that are called step by step from all their calls."""
    for name in dict.fromkeys(name for name, _ in run.neurons):
        calls = [use for use in run.neurons if use[0] == name]
        seen = [run.neurons[use] for use in calls]
        if name in run.stepping:
            sizes = (sum(each.input[1].numel() for each in seen), sum(each.spikes.numel() for each in seen))
            yield NeuronSequence(name, calls, len(calls), seen[0].layout, *sizes)
        else:
            yield from (
                NeuronSequence(name, [use], each.time_steps, each.layout, each.input[1].numel(), each.spikes.numel())
                for use, each in zip(calls, seen, strict=True)
            )


def aligned_currents(
    run: ExampleRun, sequence: NeuronSequence, through_pools: bool, routes: dict[tuple[Use, str], tuple[int, ...]]
) -> Aligned:
    """How each current that reaches a neuron lies in its steps, or why it does not."""
    found: dict[Use, ReachedCurrent] = {}
    overlapping: set[Use] = set()
    for number, call in enumerate(sequence.calls):
        seen = run.neurons[call]
        if _is_weighed(run, call):
            continue
        node, shape = seen.input
        places = numbered(shape, seen.layout, seen.time_steps)
        for reached in reached_currents(node, places, through_pools):
            _combine(found, overlapping, reached, number * shape.numel())
    aligned: Aligned = {}
    for use, reached in found.items():
        if reached.refused:
            aligned[use] = reached.refused
        elif use in overlapping:
            steps, calls = sequence.time_steps, run.calls[use[0]]
            aligned[use] = (
                f"it is called {calls} times, but its neuron {sequence.neuron} {steps} times: not once for every step"
            )
        else:
            size = int(sequence.size * reached.pooled)
            aligned[use] = align(run.synapses[use], reached.places, size, sequence.time_steps, sequence.layout)
            if reached.pooled != 1:
                routes[use, sequence.neuron] = reached.route
    return aligned | _inside(run, sequence)


def _combine(found: dict[Use, ReachedCurrent], overlapping: set[Use], reached: ReachedCurrent, offset: int) -> None:
    """Adds the places of a further call of a neuron."""
    offset = int(offset * reached.pooled)
    places = torch.where(reached.places >= 0, reached.places + offset, -1)
    known = found.get(reached.use)
    if known is None or known.refused:
        found[reached.use] = ReachedCurrent(reached.use, places, reached.refused, reached.route, reached.pooled)
    elif not reached.refused:
        if bool(((known.places >= 0) & (places >= 0)).any()):
            overlapping.add(reached.use)
        known.places = torch.where(places >= 0, places, known.places)


def _is_weighed(run: ExampleRun, call: Use) -> bool:
    """Whether a neuron weighs its input itself, so that what reaches it is no current of its own."""
    for seen in run.synapses.values():
        if seen.inside == call and seen.source is not None and not is_one_to_one(seen.call):
            sources = sources_of_spikes(seen.source)
            if any(kind_of(node) == "input" and node.use == call for node in sources):
                return True
    return False


def _inside(run: ExampleRun, sequence: NeuronSequence) -> Aligned:
    """How the currents of synapses inside a neuron lie in its steps."""
    if not any(seen.inside in sequence.calls for seen in run.synapses.values()):
        return {}
    aligned: Aligned = {}
    for use, driven in driven_places(run, sequence.neuron, sequence.calls, sequence.layout).items():
        if _is_gain(run, use, sequence.neuron):
            continue
        aligned[use] = _inside_one(run, sequence, use, driven)
    return aligned


def _inside_one(run: ExampleRun, sequence: NeuronSequence, use: Use, driven: Tensor | str) -> Alignment | str:
    shape = run.synapses[use].shape
    if shape.numel() not in (sequence.fired, sequence.fired // sequence.time_steps):
        steps = f"T = {sequence.time_steps} steps of its neuron {sequence.neuron}"
        return f"its current {list(shape)} is neither one nor all of the {steps}"
    if isinstance(driven, str):
        return driven
    return align(run.synapses[use], driven, sequence.fired, sequence.time_steps, sequence.layout)


def _is_gain(run: ExampleRun, use: Use, neuron: str) -> bool:
    """Whether a product inside a neuron is one with a parameter of its own, such as a leak, and no synapse."""
    return is_one_to_one(run.synapses[use].call) and run.owners[use[0]] == neuron
