"""The calls of synapses in a network that goes step by step: they wait for the spikes of their neurons.

A synapse conducts one or more steps a call; its neurons fire later, and only then is it known whether a sequence
starts. So each call waits until all its neurons have handed over their spikes, in the order of the steps.
"""

from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor

from tracegrad.core.calls import Synapse
from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.events_inside import event_factors, quotient, sums_of_events
from tracegrad.core.equations.expected import all_steps, expected_train
from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.equations.masking import StepMask
from tracegrad.core.equations.signals import SignalReader, SpikeTrain
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.past import Handed, Past, Run, Sequence, Totals
from tracegrad.core.time_layout import TimeLayout
from tracegrad.events.spikes import Spikes


@dataclass
class StepCall:
    """A call of a synapse whose neurons, or which itself, are called step by step.

    Attributes:
        synapse: what is called.
        geometry: of the call.
        layout: where time is in its input and current.
        time_steps: how many steps it covers.
        precision: of the relation.
        mask: which steps of which examples count; None for all.
        x: its input [n, N, ...], of the examples that the relation is computed of.
        shape: of its current of one step, [N, ...].
        weight: in use.
        trains: whether a backward pass can come to it.
        answered: how many of its steps each neuron has handed over.
        post: the spikes of each step, summed over the neurons.
        post_traces: their traces, likewise.
        pre_traces: the trace at its input at each step.
        first: the number of its first step in the sequence.
        attached: whether a neuron's state came with a graph behind it at its first step.
        runs: the sequences of its neurons.
        totals: of the spikes at both ends, where a control needs them.
        sequence: that it belongs to; None if it does not train.
    """

    synapse: Synapse
    geometry: Geometry
    layout: TimeLayout
    time_steps: int
    precision: torch.dtype
    mask: StepMask | None
    x: Tensor
    shape: torch.Size
    weight: Tensor
    trains: bool
    answered: dict[str, int] = field(default_factory=dict[str, int])
    post: list[Tensor] = field(default_factory=list[Tensor])
    post_traces: list[Tensor] = field(default_factory=list[Tensor])
    pre_traces: list[Tensor] = field(default_factory=list[Tensor])
    first: int = 0
    attached: bool = False
    runs: list[Run] = field(default_factory=list[Run])
    totals: Totals = field(default_factory=Totals)
    sequence: Sequence | None = None

    def take(self, handed: Handed) -> None:
        """Takes the spikes of the next step of a neuron."""
        step = self.answered.get(handed.neuron, 0)
        self.answered[handed.neuron] = step + 1
        if step == 0:
            self.runs.append(handed.run)
            self.attached = self.attached or handed.attached
        for steps, signal in ((self.post, handed.spikes), (self.post_traces, handed.trace)):
            sampled = signal.detach().reshape(self.shape)[: self.x.shape[1]]
            if step == len(steps):
                steps.append(sampled)
            else:
                steps[step] = steps[step] + sampled

    def activity(self, x: Tensor, weight: Tensor, post: Tensor | None, spikes: Spikes | None) -> Activity | None:
        """As `Call.activity`; what came over the edge is not needed."""
        if self.sequence is None or not any(run.reaches_loss() for run in self.runs):
            return None
        self.sequence.backpropagated = True
        return self._activity(self.first, self.time_steps)

    def _activity(self, first: int, steps: int) -> Activity:
        """What happened in steps of the sequence: its own ones, or any others where the control expects them."""
        pre, post = self._train(self.x, self.pre_traces), self._train(self.post, self.post_traces)
        control = self.synapse.rule.control
        ends = pre, control.post_train(post)
        if control.counts:
            ends = self._expected(self.totals.pre, first, steps), self._expected(self.totals.post, first, steps)
        weights, counted = self._weights(first, steps), self.mask and self.mask.examples(self.x.shape[1])
        signals = *ends, SignalReader(), weights, counted
        return Activity(self.geometry, self.weight.to(self.precision), pre.spikes, *signals, events=self.synapse.events)

    def _train(self, spikes: Tensor | list[Tensor], traces: list[Tensor]) -> SpikeTrain:
        steps = spikes if isinstance(spikes, Tensor) else _stacked(spikes)
        if self.mask is not None:
            steps = self.mask.spikes(steps, self.first)
        return SpikeTrain(steps.to(self.precision), _stacked(traces).to(self.precision))

    def _expected(self, total: Tensor, first: int, steps: int) -> SpikeTrain:
        counted = self.mask and self.mask.steps(self.x.shape[1])
        counted = all_steps(self.totals.steps, total.device) if counted is None else counted[: self.totals.steps]
        train = expected_train(total, counted, first, steps)
        assert train.trace is not None  # noqa: S101 - it is expected, too
        return SpikeTrain(train.spikes.to(self.precision), train.trace.to(self.precision))

    def relation(self, activity: Activity) -> list[Tensor]:
        """As `Call.relation`."""
        assert self.sequence is not None  # noqa: S101 - there is an activity
        synapse, time = self.synapse, self.synapse.rule.time
        if time == "per_step":
            place = f", call from step {self.first} of {self.sequence.steps}"
            raw = synapse.relation(synapse.rule.relate(time, activity), self.geometry, place)
        else:
            raw = self.sequence.of_all_steps(self._summed)
        if synapse.record is not None:
            relations = synapse.normalized(raw, self.geometry)
            synapse.record(self.sequence.record(self.first, relations) if time == "per_step" else relations[0])
        return raw

    def _summed(self, sequence: Sequence) -> list[Tensor]:
        """R of "mean" or "final" of the whole sequence."""
        if self.synapse.rule.control.counts:
            self._add_steps(sequence, sequence.first, sequence.steps)
        raw, weights = sequence.total, self._weights(self.first, self.time_steps)
        if self.synapse.rule.time == "mean" and weights is None:
            raw = raw / sequence.steps
        return self.synapse.relation([raw], self.geometry, f", {sequence.steps} steps")

    def mean_factor(self, activity: Activity) -> Tensor:
        """As `Call.mean_factor`."""
        assert self.sequence is not None  # noqa: S101 - there is an activity
        (factor,) = self.sequence.of_all_steps(self._mean_factor)
        if self.synapse.record is not None:
            factors = event_factors(self.synapse.rule.relation, activity)
            self.synapse.record(self.sequence.record(self.first, quotient(factors, factor)))
        return factor

    def _mean_factor(self, sequence: Sequence) -> list[Tensor]:
        relation = self.synapse.rule.relation
        sums = [sums_of_events(relation, call._activity(call.first, call.time_steps)) for call in sequence.calls()]
        (total,) = self.synapse.reduced([torch.stack(sums).sum(0)], f", events of {sequence.steps} steps")
        return [quotient(*total)]

    def join(self, sequence: Sequence) -> None:
        """Adds its steps to a sequence, once all neurons have handed over their spikes."""
        self.sequence = sequence
        sequence.append(self, self.first, self.time_steps)
        rule = self.synapse.rule
        if rule.time != "per_step" and not rule.control.counts and rule.factor is None:
            self._add_steps(sequence, self.first, self.time_steps)

    def _add_steps(self, sequence: Sequence, first: int, steps: int) -> None:
        """Adds R of steps of "mean" or "final" to that of a sequence."""
        rule, activity = self.synapse.rule, self._activity(first, steps)  # they hold the sequence no longer than needed
        if rule.time == "final" and activity.weights is None:
            sequence.replace(lambda: rule.relate("per_step", activity)[-1])
            return
        with torch.autocast(self.x.device.type, enabled=False):  # the forward pass may be under it
            relations = torch.stack(rule.relate("per_step", activity))
            sequence.add(relations.sum(0, dtype=at_least_float32(relations)))

    def _weights(self, first: int, steps: int) -> Tensor | None:
        if self.mask is None:
            return None
        return self.mask.weights(self.synapse.rule.time, first, steps, self.x.shape[1])


class StepUse:
    """One use of a synapse from call to call: the calls that its neurons have yet to answer, and its running trace.

    Args:
        synapse: that is called.
        neurons: the names of all neurons that its current reaches.
        reset: what a user calls to start a sequence.
    """

    def __init__(self, synapse: Synapse, neurons: set[str], reset: str) -> None:
        self.synapse = synapse
        self.neurons = neurons
        self.reset = reset
        self.pending: list[StepCall] = []
        self._past = Past()
        self._totals = Totals()
        self._sequence: ref[Sequence] | None = None

    def receive(self, handed: Handed) -> None:
        """Takes the spikes of one step of a neuron, which belong to the oldest step that it has not answered.

        Raises:
            ValueError: there is no such step.
            RuntimeError: the neurons behind one synapse start their sequences at different steps, or as `_going_on`.
        """
        call = self._awaiting(handed)
        if not call.answered:
            call.first = handed.step
        elif call.first != handed.step and not call.answered.get(handed.neuron):
            raise RuntimeError(
                f"neuron {handed.neuron} {'starts' if handed.starts else 'goes on with'} a sequence where another "
                f"neuron behind {self.synapse.name} does not: call {self.reset} where a new sequence begins"
            )
        call.take(handed)
        if call.answered == dict.fromkeys(self.neurons, call.time_steps):
            self.pending.remove(call)
            self._complete(call, handed)

    def _awaiting(self, handed: Handed) -> StepCall:
        waiting = (call for call in self.pending if call.answered.get(handed.neuron, 0) < call.time_steps)
        call = next(waiting, None)
        if call is None:
            raise ValueError(
                f"neuron {handed.neuron} was called without {self.synapse.name} before it, other than in attach's "
                "example forward pass; attach with an example that takes the same path"
            )
        if handed.spikes.numel() != call.shape.numel():
            raise ValueError(
                f"neuron {handed.neuron} fired spikes of shape {list(handed.spikes.shape)} for a current of shape "
                f"{list(call.shape)}; they must have as many elements, in the same order"
            )
        return call

    def _complete(self, call: StepCall, handed: Handed) -> None:
        if call.first == 0:
            self._past.clear()
            self._totals = Totals()
            self._sequence = None
        pre = call.x if call.mask is None else call.mask.spikes(call.x, call.first)
        call.pre_traces = self._past.advance(pre)
        if self.synapse.rule.control.counts:
            post = _stacked(call.post)
            self._totals.add(pre, post if call.mask is None else call.mask.spikes(post, call.first))
            call.totals = self._totals
        if call.trains:
            sequence = self._going_on(call, handed.neuron) or Sequence()
            call.join(sequence)
            self._sequence = ref(sequence)

    def _going_on(self, call: StepCall, neuron: str) -> Sequence | None:
        """The sequence whose steps await the same backward pass; None where there are none yet.

        Raises:
            RuntimeError: a backward pass has gone through it, and the state still hangs on that graph, or the whole
                sequence is needed in one backward pass.
        """
        if self._sequence is None:
            return None
        sequence = self._sequence()
        if sequence is not None and not sequence.backpropagated:
            return sequence
        reset = (
            f"neuron {neuron} goes on with a sequence whose backward pass has run: "
            f"call {self.reset} where a sequence begins"
        )
        rule = self.synapse.rule
        if rule.needs_whole_sequence:
            what = "control='counts'" if rule.time == "per_step" else f"time={rule.time!r}"
            right = "no such control" if rule.time == "per_step" else "time='per_step'"
            raise RuntimeError(
                f"{reset}; truncated back-propagation through time needs {right}, as {what} takes the whole sequence "
                "in one backward pass"
            )
        if call.attached:
            raise RuntimeError(f"{reset}, or detach its state for truncated back-propagation through time")
        return None


def _stacked(steps: list[Tensor]) -> Tensor:
    """[n, ...]; of a single step, without a copy."""
    return steps[0][None] if len(steps) == 1 else torch.stack(steps)
