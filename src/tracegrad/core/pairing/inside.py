"""Which steps of a neuron the currents of synapses inside it drive: its spikes are led back to what they came from."""

import heapq
from dataclasses import replace

import torch
from torch import Tensor

from tracegrad.core.pairing.example import ExampleRun
from tracegrad.core.pairing.graph import Use, Visit, ends, hash_of, kind_of, operation_of, step_back
from tracegrad.core.pairing.layouts import numbered
from tracegrad.core.pairing.operations import ELEMENTWISE
from tracegrad.core.time_layout import TimeLayout
from tracegrad.core.torch_internals import Node, creation_number, inputs_of, is_function


def driven_places(run: ExampleRun, neuron: str, calls: list[Use], layout: TimeLayout) -> dict[Use, Tensor | str]:
    """Leads the spikes of a neuron's calls back to the currents inside it.

    A membrane keeps what arrived at earlier steps, so a current reaches the spikes of many steps, over many ways. It
    drives the first of them: ways are gone in the order of the steps, and none goes on with elements that have been
    met for an earlier one. The first operation that does more than add, move and weigh is the neuron's spike function,
    which each neuron has to itself; behind a second one nothing is looked for.

    Args:
        run: the example forward pass.
        neuron: its name.
        calls: of the neuron, each with one or all of its steps.
        layout: where time is in its spikes.

    Returns:
        For each use of a synapse inside, shaped like its current, the first place of [T, B, ...] that each of its
        elements drives, -1 for none; or why they drive none of their own. Not the uses that come to no spikes.
    """
    first = run.neurons[calls[0]]
    walk = _Walk(run, neuron, first.spikes.numel() // first.time_steps)
    for number, call in enumerate(calls):
        seen = run.neurons[call]
        places = numbered(seen.spikes.shape, layout, seen.time_steps) + number * seen.spikes.numel()
        walk.put_off(Visit(seen.spikes.grad_fn, 0, places), fired=False)
    walk.run()
    found = {use: walk.places_or_reason(use) for use, seen in run.synapses.items() if seen.inside in calls}
    return {use: each for use, each in found.items() if each is not None}


class _Walk:
    """The ways back from the spikes of one neuron, of which one step has `per_step`."""

    def __init__(self, run: ExampleRun, neuron: str, per_step: int) -> None:
        self._run = run
        self._neuron = neuron
        self._per_step = per_step
        self._ahead: list[tuple[int, int, Visit, bool]] = []
        self._numbered = 0
        self._first: dict[tuple[Node, int, bool], Tensor] = {}
        self._seen: set[tuple[Node, int, bool, int]] = set()
        self._places: dict[Use, Tensor] = {}
        self._spread: set[Use] = set()
        self._refused: list[tuple[Node, str]] = []
        self._carrying: dict[Node, bool] = {}

    def put_off(self, visit: Visit, fired: bool) -> None:
        """Until the ways of earlier steps are gone."""
        reached = visit.places[visit.places >= 0]
        if reached.numel():
            self._numbered += 1
            heapq.heappush(self._ahead, (int(reached.min()) // self._per_step, self._numbered, visit, fired))

    def run(self) -> None:
        """Goes all ways back."""
        while self._ahead:
            *_, visit, fired = heapq.heappop(self._ahead)
            key = visit.node, visit.output, fired
            seen = (*key, hash_of(visit.places))
            if seen in self._seen:
                continue
            self._seen.add(seen)
            known = self._first.get(key)
            if known is not None:
                visit = replace(visit, places=torch.where(self._goes_on(visit.places, known), visit.places, -1))
                self._first[key] = torch.where(known >= 0, known, visit.places)
            else:
                self._first[key] = visit.places
            self._visit(visit, fired)

    def places_or_reason(self, use: Use) -> Tensor | str | None:
        """The places that a current drives, or why they are none of its own; None if it does not come here."""
        if use in self._spread:
            return "each of its currents drives more than one of its neurons"
        if use in self._places:
            return self._places[use]
        nearest_first = sorted(self._refused, key=lambda refused: creation_number(refused[0]))
        for node, reason in nearest_first:
            if _comes_from(node, use):
                return reason
        for (other, _), seen in self._run.synapses.items():
            if seen.source is not None and _comes_from(seen.source, use):
                return f"its current goes into {other} within its neuron"
        return None

    def _goes_on(self, places: Tensor, known: Tensor) -> Tensor:
        """Whether elements are met for the first time, or for another place of the same step."""
        same_step = places // self._per_step == known // self._per_step
        return (known < 0) | (same_step & (places != known))

    def _visit(self, visit: Visit, fired: bool) -> None:
        kind = kind_of(visit.node)
        if kind in ("current", "product"):
            self._arrive(visit.node.use, visit.places)
        if kind in ("current", "input") or (kind == "spikes" and visit.node.use[0] != self._neuron):
            return
        children = step_back(visit, through_pools=False, carries=self._carries)
        refused = next((child.refused for child in children if child.refused), None)
        if refused is None:
            for child in children:
                self.put_off(child, fired)
        elif not fired and (is_function(visit.node) or operation_of(visit.node) in ELEMENTWISE):
            for node, output, size in inputs_of(visit.node):
                if size.numel() == visit.places.numel():
                    self.put_off(Visit(node, output, visit.places.reshape(size)), fired=True)
        else:
            self._refused.append((visit.node, refused))

    def _arrive(self, use: Use, places: Tensor) -> None:
        known = self._places.setdefault(use, places)
        if bool((self._goes_on(places, known) & (known >= 0) & (places >= 0)).any()):
            self._spread.add(use)
        self._places[use] = torch.where(known >= 0, known, places)

    def _carries(self, node: Node) -> bool:
        """Whether a current, or another neuron's spikes, come to a node without a spike function on the way."""
        if node not in self._carrying:
            kinds = {
                kind_of(end)
                for end in ends(node, lambda each: not is_function(each))
                if kind_of(end) != "spikes" or end.use[0] != self._neuron
            }
            self._carrying[node] = not kinds.isdisjoint(("current", "spikes"))
        return self._carrying[node]


def _comes_from(node: Node, use: Use) -> bool:
    return any(kind_of(end) == "current" and end.use == use for end in ends(node))
