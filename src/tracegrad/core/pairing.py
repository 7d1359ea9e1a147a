"""Finds the pairs of a model: which synapse's current reaches which neuron, and whether spikes drive that synapse.

One example forward pass is run with marks in its autograd graph where currents begin and arrive and where spikes
begin and arrive; the graph is then walked back from each arrival to what it came from.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tracegrad.core.graph import Use, currents, refuse_input
from tracegrad.core.step_pairing import pair_steps
from tracegrad.core.trial import Trial


@dataclass
class Pairing:
    """What the example forward pass showed.

    Attributes:
        receivers: for each use of a neuron, the uses of synapses whose currents it sums and that can be scaled.
        refused: for each use of a synapse that can't be scaled, why.
        neurons: the names of all neurons that fired.
        written_in_place: the neurons whose spikes the model writes over.
        calls: how often each synapse and neuron was called.
        period: how often each synapse is called in one step, of those whose calls are steps.
        stepping: the neurons that are called step by step.
    """

    receivers: dict[Use, list[Use]] = field(default_factory=dict[Use, list[Use]])
    refused: dict[Use, str] = field(default_factory=dict[Use, str])
    neurons: list[str] = field(default_factory=list[str])
    written_in_place: set[str] = field(default_factory=set[str])
    calls: dict[str, int] = field(default_factory=dict[str, int])
    period: dict[str, int] = field(default_factory=dict[str, int])
    stepping: set[str] = field(default_factory=set[str])

    def is_paired(self, use: Use) -> bool:
        """Whether this use of a synapse can be scaled."""
        return any(use in uses for uses in self.receivers.values())

    def steps_of(self, neuron: str) -> list[Use]:
        """The uses of synapses within one step whose currents reach a neuron step by step."""
        uses = self.receivers.get((neuron, 0), [])
        return list({(name, call % self.period[name]): None for name, call in uses if name in self.period})


def find_pairs(model: nn.Module, example: tuple[Any, ...], spiking_input: bool) -> Pairing:
    """Runs the example and pairs every use of a synapse with the neurons that its current reaches.

    The model's parameters, buffers, hooks, gradients and training mode and the random state stay as they are.

    Args:
        model: with synapses and registered neurons.
        example: the arguments of one forward pass.
        spiking_input: the example's tensors are spikes too.

    Raises:
        ValueError: time is not the first dimension, time-major, between a synapse and its neuron.
    """
    trial = Trial(model)
    data = trial.run(example)
    pairing = Pairing(
        neurons=list(trial.fired),
        written_in_place=trial.written_in_place(),
        calls=trial.calls,
        stepping=trial.stepping,
    )
    _check_time(trial)
    drives = {use: refuse_input(node, data, spiking_input) for use, node in trial.inputs.items()}
    arrived = {neuron: currents(node, shape) for neuron, (node, shape) in trial.arrivals.items()}
    stepwise = pair_steps(trial, arrived, drives)
    pairing.period = stepwise.period
    reached: dict[Use, str | None] = {}
    for neuron, sources in arrived.items():
        for current in sources:
            reason = current.refused or drives[current.use] or stepwise.refused.get((neuron, current.use))
            if not reason:
                pairing.receivers.setdefault(neuron, []).append(current.use)
            elif current.misfolded and neuron[0] not in trial.stepping:
                raise ValueError(
                    f"{current.use[0]} folds time behind the batch, but its neuron {neuron[0]} takes [T, B, ...]: "
                    "fold time-major, x.flatten(0, 1) of [T, B, ...]"
                )
            reached[current.use] = reached.get(current.use) or reason
    for use, reason in drives.items():
        if not pairing.is_paired(use):
            no_neuron = "no post-synaptic neuron: its current reaches none"
            pairing.refused[use] = reason or reached.get(use, no_neuron) or no_neuron
    return pairing


def _check_time(trial: Trial) -> None:
    arrivals = {name: shape for (name, _), (_, shape) in trial.arrivals.items() if name not in trial.stepping}
    steps = {shape[0]: name for name, shape in arrivals.items()}
    if len(steps) > 1:
        told = ", ".join(f"T = {time_steps} in {name}" for time_steps, name in steps.items())
        raise ValueError(f"T must not change within one forward pass, but it does: {told}")
