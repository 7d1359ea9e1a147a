"""The calls of a synapse: what each knows of the spikes at both ends, and of the relation between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.controls import ControlMemory
from tracegrad.core.equations.events_inside import event_factors, quotient, sums_of_events
from tracegrad.core.equations.expected import expected_spikes
from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.equations.masking import StepMask
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.signals import SignalReader, SpikeTrain
from tracegrad.core.equations.spike_sums import in_steps
from tracegrad.core.processes import ProcessSum
from tracegrad.core.time_layout import TimeLayout
from tracegrad.events.choice import NOT_CALLED, Mode, Way
from tracegrad.events.spikes import Spikes

Record = Callable[[Tensor], None]
"""Keeps a normalised relation."""
Witness = Callable[["Call", Activity, Tensor], None]
"""Sees a call of a synapse, what happened in it, and dL/dz, [T, N, ...]."""


@dataclass
class Synapse:
    """What is the same for all calls of a synapse.

    Attributes:
        name: of the synapse.
        rule: how its gradient is scaled.
        memory: what the rule's control keeps.
        events: when its currents, gradients and relations are summed over spikes.
        sum_processes: adds up R over processes; None where each keeps its own.
        record: called with R_hat in each backward pass, if at all.
        unreached: called where a neuron's spikes do not reach the loss.
        way: what its last call took.
        witness: called with each call that a backward pass comes to, if at all.
    """

    name: str
    rule: Rule
    memory: ControlMemory
    events: Mode
    sum_processes: ProcessSum | None
    record: Record | None
    unreached: Callable[[str], None]
    way: Way = NOT_CALLED
    witness: Witness | None = None

    def reduced(self, raw: list[Tensor], place: str = "") -> list[Tensor]:
        """The raw relations, added up over all processes if asked for; `place` says where in a sequence they are."""
        return raw if self.sum_processes is None else self.sum_processes(self.name + place, raw)

    def relation(self, raw: list[Tensor], geometry: Geometry, place: str = "") -> list[Tensor]:
        """R of one or more steps, over all processes if asked for, and what a control leaves of it."""
        return [self.rule.controlled(each, geometry.weight_layout, self.memory) for each in self.reduced(raw, place)]

    def normalized(self, raw: list[Tensor], geometry: Geometry) -> Tensor:
        """R_hat of one or more steps, [n, *weight]."""
        return torch.stack([self.rule.normalized(each, geometry.weight_layout, self.memory) for each in raw])

    def scaled(self, gradients: list[Tensor], raw: list[Tensor], geometry: Geometry) -> Tensor:
        """The scaled gradient of the weight, of the gradients and relations of each step or of all."""
        return self.rule.scaled_sum(gradients, raw, geometry.weight_layout, self.memory)


class Call(Protocol):
    """One call of a synapse."""

    @property
    def synapse(self) -> Synapse:
        """What is called."""
        ...

    @property
    def geometry(self) -> Geometry:
        """How it connects its ends."""
        ...

    @property
    def layout(self) -> TimeLayout:
        """Where time is in its input and current."""
        ...

    @property
    def time_steps(self) -> int:
        """T."""
        ...

    def activity(self, x: Tensor, weight: Tensor, post: Tensor | None, spikes: Spikes | None) -> Activity | None:
        """What happened at both ends; None if the neuron's spikes do not reach the loss.

        Args:
            x: the synapse's input.
            weight: of the synapse; only its shape is used.
            post: what came over the feedback edge, [T, N, ...].
            spikes: x, packed, where the event kernels serve it.
        """
        ...

    def relation(self, activity: Activity) -> list[Tensor]:
        """R, before it is normalised: of each step for "per_step", else one."""
        ...

    def mean_factor(self, activity: Activity) -> Tensor:
        """The mean `c` of `apply="event"`, over all steps that await one backward pass."""
        ...


@dataclass(frozen=True)
class WholeCall:
    """A call for a whole sequence, whose neuron takes all steps at once.

    Attributes:
        synapse: what is called.
        geometry: of the call.
        layout: where time is in its input and current.
        time_steps: T.
        precision: of the relation.
        reader: of the signals at the ends of all synapses of one forward pass.
        mask: which steps of which examples count; None for all.
    """

    synapse: Synapse
    geometry: Geometry
    layout: TimeLayout
    time_steps: int
    precision: torch.dtype
    reader: SignalReader
    mask: StepMask | None = None

    def activity(self, x: Tensor, weight: Tensor, post: Tensor | None, spikes: Spikes | None) -> Activity | None:
        """As `Call.activity`."""
        if post is None:
            return None
        rule, weights, counted = self.synapse.rule, None, None
        pre = whole = self.layout.split(x, self.time_steps)
        examples = rule.sample_size(pre.shape[1])
        pre, post = pre[:, :examples].to(self.precision), post[:, :examples].to(self.precision)
        if self.mask is not None:
            pre, post = self.mask.spikes(pre, 0), self.mask.spikes(post, 0)
            weights = self.mask.weights(rule.time, 0, len(post), examples)
            counted = self.mask.examples(examples)
        packed = None
        if spikes is not None and pre.dtype == whole.dtype and len(pre[0]) == len(whole[0]) and self.mask is None:
            packed = in_steps(spikes, x, weight, self.layout, self.time_steps)
        ends = SpikeTrain(pre, packed=packed), rule.control.post_train(SpikeTrain(post))
        if rule.control.counts:
            ends = self._expected(pre), self._expected(post)
        weight = weight.to(self.precision)
        return Activity(self.geometry, weight, pre, *ends, self.reader, weights, counted, self.synapse.events)

    def _expected(self, spikes: Tensor) -> SpikeTrain:
        if self.mask is not None:
            return SpikeTrain(expected_spikes(spikes, self.mask.steps(spikes.shape[1])))
        return SpikeTrain(self.reader.remember("expected", spikes, lambda: expected_spikes(spikes)))

    def relation(self, activity: Activity) -> list[Tensor]:
        """As `Call.relation`."""
        synapse = self.synapse
        raw = synapse.relation(synapse.rule.relate(synapse.rule.time, activity), self.geometry)
        if synapse.record is not None:
            relations = synapse.normalized(raw, self.geometry)
            synapse.record(relations if synapse.rule.time == "per_step" else relations[0])
        return raw

    def mean_factor(self, activity: Activity) -> Tensor:
        """As `Call.mean_factor`."""
        relation = self.synapse.rule.relation
        (sums,) = self.synapse.reduced([sums_of_events(relation, activity)])
        factor = quotient(*sums)
        if self.synapse.record is not None:
            factors = event_factors(relation, activity)
            self.synapse.record(quotient(factors, factor))
        return factor
