"""Finds the pairs of a model: which synapse's current reaches which neuron, and whether spikes drive that synapse.

One example forward pass is run with marks in its autograd graph where currents begin and arrive and where spikes
begin and arrive; the graph is then walked back from each arrival to what it came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, nn

from tracegrad.core.conventions.check import ConventionChecks
from tracegrad.core.pairing.drives import data_before, neurons_before, refuse_inputs
from tracegrad.core.pairing.example import ExampleRun, run_example
from tracegrad.core.pairing.graph import Use, ends, kind_of
from tracegrad.core.pairing.reach import NeuronSequence, aligned_currents, neuron_sequences
from tracegrad.core.pairing.steps import Aligned, Recurrence, recurring_uses
from tracegrad.core.synapses import is_one_to_one
from tracegrad.core.time_layout import SINGLE_STEP, TimeLayout

_UNRECORDED = "its current is computed without gradients, as under torch.no_grad"


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
        recurrences: how the calls of synapses recur that are steps.
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
    recurrences: dict[str, Recurrence] = field(default_factory=dict[str, Recurrence])
    stepping: set[str] = field(default_factory=set[str])
    neurons: list[str] = field(default_factory=list[str])
    owners: dict[str, str] = field(default_factory=dict[str, str])
    weights: dict[str, WeightInUse] = field(default_factory=dict[str, WeightInUse])
    used_parameters: set[int] = field(default_factory=set[int])
    watched: frozenset[str] = frozenset()

    def place(self, synapse: str, call: int) -> Use:
        """The use of a synapse that a call is: where it recurs, its place within a step, -1 for an idle one."""
        period, idle = self.recurrences.get(synapse, (call + 1, 0))
        return synapse, (call - idle) % period if call >= idle else -1

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
    with torch.device("cpu"):  # where indices are, whatever the default device is
        _check_conventions(model, run)
        return _pair(run, spiking_input, through_pools)


def _pair(run: ExampleRun, spiking_input: bool, through_pools: bool) -> Pairing:
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
    reasons = {use: _UNRECORDED for use, seen in run.synapses.items() if not seen.recorded}
    reasons = {use: reason for use, reason in drives.items() if reason} | reasons
    reached: dict[str, list[tuple[int, Aligned]]] = {}
    for sequence in neuron_sequences(run):
        aligned = aligned_currents(run, sequence, through_pools, pairing.routes)
        reached.setdefault(sequence.neuron, []).append((sequence.time_steps, aligned))
        for use, alignment in aligned.items():
            if isinstance(alignment, str):
                reasons.setdefault(use, alignment)
            elif alignment.step is None and not drives[use]:
                _pair_whole(run, pairing, sequence, use, alignment.layout, reasons)
    for neuron in reached:
        _pair_steps(run, pairing, neuron, reached, drives, reasons)
    _refuse_the_rest(run, pairing, reasons)
    return pairing


def _refuse_the_rest(run: ExampleRun, pairing: Pairing, reasons: dict[Use, str]) -> None:
    """Says why each call of a synapse that is not paired is left unscaled."""
    paired = {use for use, _ in pairing.paired()}
    goes_into = _goes_into(run)
    for use, seen in run.synapses.items():
        place = pairing.place(*use)
        if place in paired or place[1] < 0 or is_one_to_one(seen.call):
            continue
        into = f"goes into {goes_into[use]} as it is" if use in goes_into else "reaches none"
        pairing.refused[use] = reasons.get(use, f"no post-synaptic neuron: its current {into}")
    synapses = {name for name, _ in (*paired, *pairing.refused)}
    for products in (pairing.owners, pairing.weights):  # one that is no synapse is a gain, or a part of a norm
        for name in products.keys() - synapses:
            del products[name]


def _goes_into(run: ExampleRun) -> dict[Use, str]:
    """The calls of synapses whose current is the input of another synapse, and which."""
    found: dict[Use, str] = {}
    for (name, _), seen in run.synapses.items():
        for node in ends(seen.source) if seen.source is not None else ():
            if kind_of(node) == "current":
                found.setdefault(node.use, name)
    return found


def _weights(run: ExampleRun) -> dict[str, WeightInUse]:
    found: dict[str, WeightInUse] = {}
    for (name, _), seen in run.synapses.items():
        weight = seen.call.weight
        macs = seen.call.geometry.macs(seen.call.x, torch.empty(seen.shape, device="meta"), weight)
        known = found.get(name)
        found[name] = WeightInUse(weight.shape, weight.requires_grad, macs + (known.macs if known else 0))
    return found


def _check_conventions(model: nn.Module, run: ExampleRun) -> None:
    """Checks that each neuron does what is declared of its class."""
    checks = ConventionChecks()
    for (name, call), seen in run.neurons.items():
        if call == 0:
            checks.check(name, model.get_submodule(name), seen.arguments, seen.keywords)


def _pair_whole(
    run: ExampleRun, pairing: Pairing, sequence: NeuronSequence, use: Use, layout: TimeLayout, reasons: dict[Use, str]
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
    reached: dict[str, list[tuple[int, Aligned]]],
    drives: dict[Use, str | None],
    reasons: dict[Use, str],
) -> None:
    """Pairs the synapses that are called once or more for each step of a neuron."""
    reaching = {use for each in reached.values() for _, aligned in each for use in aligned}
    for synapse, uses, found in recurring_uses(run, neuron, reached[neuron], drives, reaching):
        if not isinstance(found, str) and pairing.recurrences.setdefault(synapse, found) != found:
            found = "its current reaches neurons that are called differently often"
        if neuron not in run.stepping and any((use, neuron) in pairing.routes for use in uses):
            found = f"a pool is between its steps and its neuron {neuron}, which takes all steps at once"
        if isinstance(found, str):
            reasons.update({use: found for use in uses if use not in reasons})
            continue
        places = sorted({pairing.place(*use) for use in uses})
        pairing.steps.setdefault(neuron, []).extend(places)
        pairing.layouts.update(dict.fromkeys(places, SINGLE_STEP))


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
