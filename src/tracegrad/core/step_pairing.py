"""Which uses of synapses are steps: calls that recur in the same way at every step of a neuron."""

from dataclasses import dataclass, field

from tracegrad.core.graph import Arrival, Use
from tracegrad.core.trial import Trial


@dataclass
class Steps:
    """What recurs.

    Attributes:
        period: how often a synapse is called in one step; its call c is number c % period of its step.
        refused: for a use of a neuron and of a synapse whose current reaches it, why it is no step.
    """

    period: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[tuple[Use, Use], str] = field(default_factory=dict[tuple[Use, Use], str])


def pair_steps(trial: Trial, arrived: dict[Use, list[Arrival]], drives: dict[Use, str | None]) -> Steps:
    """Finds the synapses whose current reaches each step of a neuron from a call of its own."""
    found = Steps()
    for neuron in trial.fired:
        steps = _steps(trial, neuron, arrived)
        behind = [uses for _, uses in steps]
        for synapse in {name for uses in behind for name, _ in uses}:
            reason = _refuse(trial, neuron, synapse, behind) or _refuse_some(synapse, behind, drives)
            period = trial.calls[synapse] // len(steps)
            if not reason and found.period.setdefault(synapse, period) != period:
                reason = "its current reaches neurons that are called differently often"
            if reason:
                pairs = ((call, use) for call, uses in steps for use in uses if use[0] == synapse)
                found.refused |= dict.fromkeys(pairs, reason)
    return found


def _steps(trial: Trial, neuron: str, arrived: dict[Use, list[Arrival]]) -> list[tuple[Use, set[Use]]]:
    """For each step of a neuron: which of its calls that is, and the uses of synapses that reach it there alone."""
    calls = [(neuron, call) for call in range(trial.calls[neuron])]
    if neuron in trial.stepping:
        return [(call, {arrival.use for arrival in arrived[call]}) for call in calls]
    return [
        (call, {arrival.use for arrival in arrived[call] if arrival.step == step})
        for call in calls
        for step in range(trial.arrivals[call][1][0])
    ]


def _refuse(trial: Trial, neuron: str, synapse: str, behind: list[set[Use]]) -> str | None:
    """Why the calls of a synapse are not steps of a neuron that they reach; None if they are."""
    if trial.starts.get(neuron, 0) > 1:
        return f"its neuron {neuron} starts {trial.starts[neuron]} sequences in one forward pass"
    calls, steps = trial.calls[synapse], len(behind)
    if calls < steps:
        return f"it is called {calls} times, but its neuron {neuron} {steps} times: not once for every step"
    period, rest = divmod(calls, steps)
    places = {
        frozenset(call - step * period for name, call in uses if name == synapse) for step, uses in enumerate(behind)
    }
    regular = not rest and len(places) == 1 and all(0 <= place < period for place in next(iter(places)))
    return None if regular else f"its current does not reach its neuron {neuron} in the same way at every step"


def _refuse_some(synapse: str, behind: list[set[Use]], drives: dict[Use, str | None]) -> str | None:
    """Why some steps of a synapse get no spikes, where others do."""
    reasons = [drives[use] for uses in behind for use in uses if use[0] == synapse]
    return next((reason for reason in reasons if reason), None)
