"""What a relation is computed of: the spikes at a synapse's two ends, and how it connects them."""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.equations.moments import sums_over_examples
from tracegrad.core.equations.signals import End, Signal, SignalReader, SpikeTrain
from tracegrad.core.equations.spike_sums import Reading, correlate, two_sums_pay
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.events.choice import Mode
from tracegrad.events.onto import NOTHING, Onto
from tracegrad.events.spikes import Spikes


@dataclass(frozen=True)
class Activity:
    """One call of a synapse, as a relation sees it.

    Attributes:
        geometry: how the ends are connected.
        weight: of the synapse; only its shape is used.
        arrived: what came in, [T, N, ...].
        pre: what counts as that at the pre-synaptic end: the same, unless a control says otherwise.
        post: the spikes of the neuron behind it, [T, N, ...] in the shape of the synapse's output.
        reader: of the signals at both ends.
        weights: of each step and example in R, [T, N], where they are masked (`StepMask.weights`); None: all count.
        examples: which examples count, [N], where the spikes of the others are 0; None: all.
        events: when correlations are summed over spikes.
    """

    geometry: Geometry
    weight: Tensor
    arrived: Tensor
    pre: SpikeTrain
    post: SpikeTrain
    reader: SignalReader
    weights: Tensor | None = None
    examples: Tensor | None = None
    events: Mode = "off"

    @property
    def time_steps(self) -> int:
        """T."""
        return len(self.pre.spikes)

    @property
    def signal_weights(self) -> Tensor | None:
        """`weights` with as many dimensions as a signal."""
        return None if self.weights is None else like(self.weights, self.post.spikes).to(self.post.spikes)

    def end(self, end: End) -> SpikeTrain:
        """The spikes at one end."""
        return self.pre if end == "pre" else self.post

    def read(self, signal: Signal, end: End) -> Tensor:
        """A signal at every step, [T, N, ...]."""
        return self.reader.read(signal, self.end(end))

    def sums(self, signal: Signal, end: End, first: int) -> Tensor:
        """The sums over the examples of a signal and of its square, as far as they count, [T - first, 2, ...]."""
        counted = self._counted()
        if counted is None:
            return self.reader.read_sums(signal, self.end(end), first)
        return sums_over_examples(self.read(signal, end)[first:], counted[first:])

    @property
    def number(self) -> Tensor:
        """Of the examples, as far as they count, [T]; in float32 at least."""
        spikes, counted = self.pre.spikes, self._counted()
        if counted is None:
            return spikes.new_full(spikes.shape[:1], spikes.shape[1], dtype=at_least_float32(spikes))
        return counted.sum(1)

    def _counted(self) -> Tensor | None:
        """How much each example counts at each step, [T, N]; None: all count once."""
        spikes = self.pre.spikes
        counted = [each.to(at_least_float32(spikes)) for each in (self.weights, self.examples) if each is not None]
        return reduce(torch.mul, counted).expand(spikes.shape[:2]) if counted else None

    def at(self, signal: Signal, end: End, step: int) -> Reading:
        """A signal at one step."""
        return Reading(self.read(signal, end)[step], self._packed(signal, end, step))

    def last(self, signal: Signal, end: End) -> Reading:
        """A signal at the last step."""
        return Reading(self.reader.read_last(signal, self.end(end)), self._packed(signal, end, self.time_steps - 1))

    def correlate(self, pre: Reading, post: Reading, onto: Onto = NOTHING) -> Tensor:
        """`Geometry.correlate` of what stands at both ends, added onto another correlation."""
        return correlate(self.geometry, pre, post, self.weight, onto)

    def spikes(self, end: End) -> Spikes | None:
        """The spikes of all steps, packed; None where they are none, or the dense way serves the synapse."""
        return self.reader.pack(self.geometry, self.end(end), self.weight, self.events)

    def two_sums_pay(self) -> bool:
        """Whether two sums, one over the spikes of each end of a step, take less than one dense correlation."""
        ends = self._packed("spikes", "pre", 0), self._packed("spikes", "post", 0)
        return two_sums_pay(self.geometry, *ends, self.weight)

    def _packed(self, signal: Signal, end: End, step: int) -> Spikes | None:
        packed = self.spikes(end) if signal == "spikes" else None
        return None if packed is None else packed.part(step, self.time_steps)


def like(weights: Tensor, signal: Tensor) -> Tensor:
    """With as many dimensions as a signal."""
    return weights.reshape(*weights.shape, *(1 for _ in range(signal.dim() - weights.dim())))
