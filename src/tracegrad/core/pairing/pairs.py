"""Finds the pairs of a model: which synapse's current reaches which neuron, and whether spikes drive that synapse.

One example forward pass is run with marks in its autograd graph where currents begin and arrive and where spikes
begin and arrive; the graph is then walked back from each arrival to what it came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, nn

from tracegrad.core.pairing.drives import data_before, neurons_before, refuse_inputs
from tracegrad.core.pairing.example import ExampleRun, run_example
from tracegrad.core.pairing.graph import ReachedCurrent, Use, kind_of, reached_currents, sources_of_spikes
from tracegrad.core.pairing.layouts import Alignment, align
from tracegrad.core.pairing.steps import Aligned, recurring_uses
from tracegrad.core.synapses import is_one_to_one
from tracegrad.core.time_layout import SINGLE_STEP, TimeLayout


@dataclass(frozen=True)
class StepCount:
    """Where a call of a synapse reads T, if its own shape does not tell.

    Attributes:
        neuron: that fired before.
        data: or which of the model's input tensors, and which of its dimensions.
        fixed: or the example's T.
    """

    neuron: str | None = None
    data: tuple[int, int] | None = None
    fixed: int | None = None


@dataclass(frozen=True)
class WeightInUse:
    """What a synapse multiplies its input by.

    Attributes:
        shape: of the weight.
        trains: whether it has a gradient.
        macs: multiply-accumulates of all calls in the example, as of dense layers.
    """

    shape: Size
    trains: bool
    macs: int


@dataclass
class Pairing:
    """What the example forward pass showed.

    Attributes:
        receivers: for each call of a neuron that takes all steps at once, the calls of synapses, of all steps as well,
            whose currents it sums.
        steps: for each neuron, the uses of synapses to which it hands over its spikes step by step.
        layouts: where time is in the current of each use of a synapse.
        step_counts: where the uses of synapses read T.
        routes: for a synapse's use and a neuron with a pool between them, the way back.
        refused: for each use of a synapse that can't be scaled, why.
        written_in_place: the neurons whose spikes the model writes over.
        calls: how often each synapse and neuron was called.
        period: how often each synapse is called in one step, of those whose calls are steps.
        stepping: the neurons that are called step by step.
        owners: the module in which each synapse computes its current.
        weights: of each synapse that was called.
        used_parameters: the ids of the parameters that these weights are made of.
        watched: the modules that compute their currents in another way than PyTorch's layers do.
    """

    receivers: dict[Use, list[Use]] = field(default_factory=dict[Use, list[Use]])
    steps: dict[str, list[Use]] = field(default_factory=dict[str, list[Use]])
    layouts: dict[Use, TimeLayout] = field(default_factory=dict[Use, TimeLayout])
    step_counts: dict[Use, StepCount] = field(default_factory=dict[Use, StepCount])
    routes: dict[tuple[Use, str], tuple[int, ...]] = field(default_factory=dict[tuple[Use, str], tuple[int, ...]])
    refused: dict[Use, str] = field(default_factory=dict[Use, str])
    written_in_place: set[str] = field(default_factory=set[str])
    calls: dict[str, int] = field(default_factory=dict[str, int])
    period: dict[str, int] = field(default_factory=dict[str, int])
    stepping: set[str] = field(default_factory=set[str])
    neurons: list[str] = field(default_factory=list[str])
    owners: dict[str, str] = field(default_factory=dict[str, str])
    weights: dict[str, WeightInUse] = field(default_factory=dict[str, WeightInUse])
    used_parameters: set[int] = field(default_factory=set[int])
    watched: frozenset[str] = frozenset()

    def paired(self) -> Iterator[tuple[Use, str]]:
        """Each use of a synapse that is scaled, with a neuron that its current reaches."""
        for (neuron, _), uses in self.receivers.items():
            yield from ((use, neuron) for use in uses)
        for neuron, uses in self.steps.items():
            yield from ((use, neuron) for use in uses)

    def leave_out(self, synapse: str, reason: str) -> None:
        """Refuses all uses of a synapse."""
        for use in {use for use, _ in self.paired() if use[0] == synapse}:
            self.refused[use] = reason
        for uses in (*self.receivers.values(), *self.steps.values()):
            uses[:] = [use for use in uses if use[0] != synapse]


@dataclass
class _Sequence:
    """The steps that a neuron takes in the example: in one call all of them, or in each call one.

    Attributes:
        neuron: its name.
        calls: of the neuron.
        time_steps: T.
        layout: where time is in its input.
        size: T * B * ..., how many elements its input has over all steps.
    """

    neuron: str
    calls: list[Use]
    time_steps: int
    layout: TimeLayout
    size: int


def find_pairs(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], spiking_input: bool, through_pools: bool
) -> Pairing:
    """Runs the example and pairs every use of a synapse with the neurons that its current reaches.

    The model's parameters, buffers, hooks, gradients and training mode and the random state stay as they are.

    Args:
        model: with synapses and registered neurons.
        arguments: of one forward pass.
        keywords: of it.
        spiking_input: the example's tensors are spikes too.
        through_pools: pair a synapse with a neuron behind a pool.
    """
    run = run_example(model, arguments, keywords)
    drives = refuse_inputs(run, spiking_input)
    pairing = Pairing(
        written_in_place=run.written_in_place(),
        calls=run.calls,
        stepping=run.stepping,
        neurons=list(dict.fromkeys(name for name, _ in run.neurons)),
        owners=run.owners,
        weights=_weights(run),
        used_parameters=run.used_parameters,
        watched=run.watched,
    )
    reasons = {use: reason for use, reason in drives.items() if reason}
    reached: dict[str, list[tuple[int, Aligned]]] = {}
    for sequence in _sequences(run):
        aligned = _aligned(run, sequence, through_pools, pairing.routes)
        reached.setdefault(sequence.neuron, []).append((sequence.time_steps, aligned))
        for use, alignment in aligned.items():
            if isinstance(alignment, str):
                reasons.setdefault(use, alignment)
            elif alignment.step is None and not drives[use]:
                _pair_whole(run, pairing, sequence, use, alignment.layout, reasons)
    for neuron, sequences in reached.items():
        _pair_steps(run, pairing, neuron, sequences, drives, reasons)
    paired = {use for use, _ in pairing.paired()}
    for use, seen in run.synapses.items():
        name, call = use
        is_paired = ((name, call % pairing.period[name]) if name in pairing.period else use) in paired
        if not is_paired and not is_one_to_one(seen.call):
            pairing.refused[use] = reasons.get(use, "no post-synaptic neuron: its current reaches none")
    synapses = {name for name, _ in (*paired, *pairing.refused)}
    for products in (pairing.owners, pairing.weights):  # one that is no synapse is a gain, or a part of a norm
        for name in products.keys() - synapses:
            del products[name]
    return pairing


def _weights(run: ExampleRun) -> dict[str, WeightInUse]:
    found: dict[str, WeightInUse] = {}
    for (name, _), seen in run.synapses.items():
        weight = seen.call.weight
        macs = seen.call.geometry.macs(seen.call.x, torch.empty(seen.shape, device="meta"), weight)
        known = found.get(name)
        found[name] = WeightInUse(weight.shape, weight.requires_grad, macs + (known.macs if known else 0))
    return found


def _pair_whole(
    run: ExampleRun, pairing: Pairing, sequence: _Sequence, use: Use, layout: TimeLayout, reasons: dict[Use, str]
) -> None:
    """Pairs a call of a synapse that covers all steps of a neuron."""
    count = _step_count(run, use, layout, sequence.time_steps)
    if isinstance(count, str):
        reasons[use] = count
        return
    pairing.layouts[use] = layout
    if count is not None:
        pairing.step_counts[use] = count
    if sequence.layout.dim is None:
        pairing.steps.setdefault(sequence.neuron, []).append(use)
    else:
        pairing.receivers.setdefault(sequence.calls[0], []).append(use)


def _pair_steps(
    run: ExampleRun,
    pairing: Pairing,
    neuron: str,
    sequences: list[tuple[int, Aligned]],
    drives: dict[Use, str | None],
    reasons: dict[Use, str],
) -> None:
    """Pairs the synapses that are called once or more for each step of a neuron."""
    for synapse, uses, period in recurring_uses(run, neuron, sequences, drives):
        if isinstance(period, int) and pairing.period.setdefault(synapse, period) != period:
            period = "its current reaches neurons that are called differently often"
        if neuron not in run.stepping and any((use, neuron) in pairing.routes for use in uses):
            period = f"a pool is between its steps and its neuron {neuron}, which takes all steps at once"
        if isinstance(period, str):
            reasons.update({use: period for use in uses if use not in reasons})
            continue
        places = sorted({(synapse, call % period) for _, call in uses})
        pairing.steps.setdefault(neuron, []).extend(places)
        pairing.layouts.update(dict.fromkeys(places, SINGLE_STEP))


def _sequences(run: ExampleRun) -> Iterator[_Sequence]:
    """The sequences of all neurons, those that are called step by step from all their calls."""
    for name in dict.fromkeys(name for name, _ in run.neurons):
        calls = [use for use in run.neurons if use[0] == name]
        seen = [run.neurons[use] for use in calls]
        if name in run.stepping:
            yield _Sequence(name, calls, len(calls), seen[0].layout, sum(each.input[1].numel() for each in seen))
        else:
            yield from (
                _Sequence(name, [use], each.time_steps, each.layout, each.input[1].numel())
                for use, each in zip(calls, seen, strict=True)
            )


def _aligned(
    run: ExampleRun, sequence: _Sequence, through_pools: bool, routes: dict[tuple[Use, str], tuple[int, ...]]
) -> Aligned:
    """How each current that reaches a neuron lies in its steps, or why it does not."""
    found: dict[Use, ReachedCurrent] = {}
    overlapping: set[Use] = set()
    for number, call in enumerate(sequence.calls):
        seen = run.neurons[call]
        if _is_weighed(run, call):
            continue
        node, shape = seen.input
        in_time = seen.layout.split(torch.empty(shape, device="meta"), seen.time_steps).shape
        places = seen.layout.merge(torch.arange(shape.numel()).reshape(in_time)).reshape(shape)
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
            size = sequence.size * reached.pooled
            aligned[use] = align(run.synapses[use], reached.places, size, sequence.time_steps, sequence.layout)
            if reached.pooled > 1:
                routes[use, sequence.neuron] = reached.route
    return aligned | _inside(run, sequence)


def _combine(found: dict[Use, ReachedCurrent], overlapping: set[Use], reached: ReachedCurrent, offset: int) -> None:
    """Adds the places of a further call of a neuron."""
    offset *= reached.pooled
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


def _inside(run: ExampleRun, sequence: _Sequence) -> Aligned:
    """How the currents of synapses inside a neuron lie in its steps."""
    aligned: Aligned = {}
    for number, call in enumerate(sequence.calls):
        inside = [use for use, seen in run.synapses.items() if seen.inside == call]
        for name in dict.fromkeys(name for name, _ in inside):
            uses = [use for use in inside if use[0] == name]
            for index, use in enumerate(uses):
                aligned[use] = _inside_one(run, sequence, use, len(uses), number, index)
    return {use: each for use, each in aligned.items() if not _is_gain(run, use, sequence.neuron)}


def _inside_one(run: ExampleRun, sequence: _Sequence, use: Use, count: int, number: int, index: int) -> Alignment | str:
    shape = run.synapses[use].shape
    one_by_one = sequence.layout.dim is None
    if shape.numel() * sequence.time_steps == sequence.size and (one_by_one or count == sequence.time_steps):
        return Alignment(SINGLE_STEP, number if one_by_one else index)
    if count == 1 and not one_by_one and shape.numel() == sequence.size:
        places = torch.arange(shape.numel()).reshape(shape)
        return align(run.synapses[use], places, sequence.size, sequence.time_steps, sequence.layout)
    return (
        f"inside its neuron {sequence.neuron} it has currents of shape {list(shape)}, {count} in {sequence.time_steps} "
        "steps: not one for each neuron and step"
    )


def _is_gain(run: ExampleRun, use: Use, neuron: str) -> bool:
    """Whether a product inside a neuron is one with a parameter of its own, such as a leak, and no synapse."""
    return is_one_to_one(run.synapses[use].call) and run.owners[use[0]] == neuron


def _step_count(run: ExampleRun, use: Use, layout: TimeLayout, time_steps: int) -> StepCount | str | None:
    """Where a call with time in dimension 0, or folded, reads T; None if its own shape tells; a reason against it."""
    if layout.dim and not layout.folded:
        return None
    before = neurons_before(run, use)
    known = {
        name: run.calls[name] if name in run.stepping else run.neurons[name, call].time_steps for name, call in before
    }
    agreeing = [name for name, steps in known.items() if steps == time_steps]
    if agreeing:
        return StepCount(neuron=agreeing[0])
    if not layout.folded:
        return None
    if known:
        told = ", ".join(f"T = {steps} of {name}" for name, steps in known.items())
        return f"its neuron takes T = {time_steps} steps, but those before it another number: {told}"
    tensors, data = list(run.data.values()), data_before(run, use)
    for index in (number for number, each in enumerate(tensors) if any(each is found for found in data)):
        dims = [dim for dim in range(min(tensors[index].dim(), 2)) if tensors[index].shape[dim] == time_steps]
        if dims:
            return StepCount(data=(index, dims[-1] if layout.dim else dims[0]))
    return StepCount(fixed=time_steps)
