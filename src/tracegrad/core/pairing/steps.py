"""Which uses of synapses are steps: calls that recur in the same way at every step of a neuron."""

from collections.abc import Iterator
from typing import NamedTuple

from tracegrad.core.pairing.example import ExampleRun
from tracegrad.core.pairing.graph import Use
from tracegrad.core.pairing.layouts import Alignment

Aligned = dict[Use, Alignment | str]
"""How each use of a synapse that reaches a neuron lies in its steps, or why it does not."""


class Recurrence(NamedTuple):
    """How the calls of a synapse recur.

    Attributes:
        period: how many there are in one step.
        idle: how many come before the first step and reach no neuron.
    """

    period: int
    idle: int = 0


def recurring_uses(
    run: ExampleRun,
    neuron: str,
    sequences: list[tuple[int, Aligned]],
    drives: dict[Use, str | None],
    reaching: set[Use],
) -> Iterator[tuple[str, set[Use], str | Recurrence]]:
    """The synapses whose current reaches each step of a neuron from a call of its own.

    Args:
        run: the example forward pass.
        neuron: its name.
        sequences: for each sequence of the neuron, T and what reaches it.
        drives: for each use of a synapse, why its input is not made of spikes.
        reaching: the uses of synapses whose currents reach some neuron.

    Yields:
        The synapse, its uses, and how they recur; or why its calls are no steps.
    """
    behind: list[set[Use]] = []
    for time_steps, aligned in sequences:
        steps: list[set[Use]] = [set() for _ in range(time_steps)]
        for use, each in aligned.items():
            if isinstance(each, Alignment) and each.step is not None:
                steps[each.step].add(use)
        behind += steps
    for synapse in dict.fromkeys(name for uses in behind for name, _ in sorted(uses)):
        uses = {use for step in behind for use in step if use[0] == synapse}
        undriven = next((drives[use] for use in sorted(uses) if drives[use]), None)
        found = _recurrence(run, neuron, synapse, behind, reaching)
        yield synapse, uses, found if isinstance(found, str) else undriven or found


def _recurrence(
    run: ExampleRun, neuron: str, synapse: str, behind: list[set[Use]], reaching: set[Use]
) -> Recurrence | str:
    """How the calls of a synapse recur at the steps of a neuron that they reach, or why they are no steps."""
    if run.starts.get(neuron, 0) > 1:
        return f"its neuron {neuron} starts {run.starts[neuron]} sequences in one forward pass"
    calls, steps = run.calls[synapse], len(behind)
    if calls < steps:
        return f"it is called {calls} times, but its neuron {neuron} {steps} times: not once for every step"
    idle = next((call for call in range(calls) if (synapse, call) in reaching), calls)
    for first in dict.fromkeys((0, idle)):  # a call before the first step may only have told the shape
        period, rest = divmod(calls - first, steps)
        places = {
            frozenset(call - first - step * period for name, call in uses if name == synapse)
            for step, uses in enumerate(behind)
        }
        if not rest and len(places) == 1 and all(0 <= place < period for place in next(iter(places))):
            return Recurrence(period, first)
    return f"its current does not reach its neuron {neuron} in the same way at every step"
