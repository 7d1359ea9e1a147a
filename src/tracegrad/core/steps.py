"""Gradient scaling of networks that are called step by step: synapses and neurons on [B, ...], once per step.

Each step of a synapse computes with a view of the weight of its own:

    W' = scaled(W)              the identity
    z(t) = W' s_pre(t) + b      by whatever operation the synapse is

    backward of scaled          gets G(t), the part of the gradient that this step contributes: returns g(G(t), R_hat)

What stands at the two ends of a step becomes known when the neuron fires, later in the forward pass: its state tells
whether a sequence starts, and the traces run on from step to step as long as that state does. In the backward pass all
of it is known: "per_step" reads the traces of the step itself, "mean" and "final" those of the whole sequence. As the
linear g is linear in G, sum_t g(G(t), R_hat) = g(sum_t G(t), R_hat) there.
"""

from dataclasses import dataclass, field
from functools import reduce
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from tracegrad.core.gate import Record, Rule, of_all_processes
from tracegrad.core.relation import Ends, Signals, normalized, relate_step
from tracegrad.core.scaling import scaled_sum
from tracegrad.core.synapse import Geometry
from tracegrad.core.trace import DECAY, at_least_float32


class RunningTrace:
    """Eq. 5, one step at a time: x(t) = decay * x(t-1) + s(t), x(-1) = 0."""

    def __init__(self) -> None:
        self._trace: Tensor | None = None

    def clear(self) -> None:
        """A sequence starts."""
        self._trace = None

    def step(self, spikes: Tensor, precision: torch.dtype) -> Signals:
        """The signals of the next step, of its spikes; the trace adds up in `precision`."""
        spikes = spikes.detach()
        new = spikes.to(precision)
        self._trace = new if self._trace is None else DECAY * self._trace + new
        return {"trace": self._trace, "spikes": spikes}


@dataclass(frozen=True)
class Scaled:
    """A synapse, how its gradient is scaled, and who wants to know its relation."""

    geometry: Geometry
    rule: Rule
    record: Record | None

    def relate(self, ends: Ends, weight: Tensor) -> Tensor:
        """The raw relation of one step."""
        return relate_step(self.rule.relation, self.geometry, weight, ends)


class Sequence:
    """The ends of those steps of a synapse that one backward pass is to go through; they live as long as its graph."""

    def __init__(self) -> None:
        self.ends: list[Ends] = []
        self.backpropagated = False
        self._raw: tuple[int, list[Tensor]] | None = None

    def relation(self, scaled: Scaled, weight: Tensor) -> list[Tensor]:
        """R for "mean" or "final", raw."""
        if self._raw is None or self._raw[0] != len(self.ends):
            ends = self.ends[-1:] if scaled.rule.time == "final" else self.ends
            total = reduce(torch.add, (scaled.relate(step, weight) for step in ends)) / len(ends)
            self._raw = len(self.ends), of_all_processes([total], scaled.rule)
        return self._raw[1]

    def record(self, scaled: Scaled, weight: Tensor) -> None:
        """Tells the normalised relation to who wants to know it, once."""
        if scaled.record is None or self.backpropagated:
            return
        normalize = scaled.rule.normalize
        if scaled.rule.time != "per_step":
            scaled.record(normalized(normalize, self.relation(scaled, weight)[0]))
            return
        raw = of_all_processes([scaled.relate(step, weight) for step in self.ends], scaled.rule)
        scaled.record(torch.stack([normalized(normalize, step) for step in raw]))


@dataclass
class Step:
    """One step of a synapse.

    Attributes:
        spikes: at its input, of the examples that the relation is computed of.
        weight: of the synapse; only its shape and precision are used.
        shape: of its current.
        trains: whether a backward pass can come to it.
        neurons: those that have fired since.
        starts: whether it starts a sequence, once a neuron has fired.
        ends: the signals at its two ends, as soon as a neuron has fired.
        sequence: that it belongs to, alike.
    """

    spikes: Tensor
    weight: Tensor
    shape: torch.Size = field(default_factory=torch.Size)
    trains: bool = False
    neurons: set[str] = field(default_factory=set[str])
    starts: bool = False
    ends: Ends | None = None
    sequence: Sequence | None = None

    def add(self, post: Signals, sample: slice) -> None:
        """Adds the signals of a neuron that the current has reached."""
        assert self.ends is not None  # noqa: S101 - the caller has just begun it
        for signal, values in post.items():
            sampled = values.reshape(self.shape)[sample]
            known = self.ends["post"].get(signal)
            self.ends["post"][signal] = sampled if known is None else known + sampled


class Course:
    """One use of a synapse from step to step: the steps that its neurons have yet to answer, and its running trace.

    Args:
        name: of the synapse.
        neurons: the names of all neurons that its current reaches.
        scaled: the synapse and the rule.
        reset: what a user calls to start a sequence.
    """

    def __init__(self, name: str, neurons: set[str], scaled: Scaled, reset: str) -> None:
        self.name = name
        self.neurons = neurons
        self.scaled = scaled
        self.reset = reset
        self.pending: list[Step] = []
        self._trace = RunningTrace()
        self._sequence: ref[Sequence] | None = None

    def conduct(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current of one step."""
        sample = slice(self.scaled.rule.sample_size(x.shape[0]))
        precision = _precision(x)
        step = Step(x.detach()[sample].to(precision), weight.detach())
        step.trains = torch.is_grad_enabled() and weight.requires_grad
        if step.trains:
            weight = _Scale.apply(weight, step, self.scaled)  # pyright: ignore[reportAssignmentType]
        current = self.scaled.geometry.current(x, weight, bias)
        step.shape = current.shape
        self.pending.append(step)
        return current

    def receive(self, neuron: str, post: Signals, starts: bool, attached: bool) -> None:
        """Takes the signals of a neuron that has answered the oldest step for which it had not.

        Args:
            neuron: its name.
            post: its signals.
            starts: whether the neuron started a sequence.
            attached: whether its state came with a graph behind it.

        Raises:
            ValueError: there is no such step.
            RuntimeError: the neurons behind one synapse start their sequences at different steps, or as `_going_on`.
        """
        step = self._take(neuron, post)
        if step.ends is None:
            self._begin(neuron, step, starts, attached)
        elif step.starts != starts:
            raise RuntimeError(
                f"neuron {neuron} {'starts' if starts else 'goes on with'} a sequence where another neuron behind "
                f"{self.name} does not: call {self.reset} where a new sequence begins"
            )
        step.add(post, slice(len(step.spikes)))

    def _take(self, neuron: str, post: Signals) -> Step:
        step = next((step for step in self.pending if neuron not in step.neurons), None)
        if step is None:
            raise ValueError(
                f"neuron {neuron} was called without {self.name} before it, other than in attach's example forward "
                "pass; attach with an example that takes the same path"
            )
        if post["spikes"].numel() != step.shape.numel():
            raise ValueError(
                f"neuron {neuron} fired spikes of shape {list(post['spikes'].shape)} for a current of shape "
                f"{list(step.shape)}; they must have as many elements, in the same order"
            )
        step.neurons.add(neuron)
        if step.neurons == self.neurons:
            self.pending.remove(step)
        return step

    def _begin(self, neuron: str, step: Step, starts: bool, attached: bool) -> None:
        if starts:
            self._trace.clear()
            self._sequence = None
        step.starts = starts
        step.ends = {"pre": self._trace.step(step.spikes, at_least_float32(step.spikes)), "post": {}}
        if step.trains:
            step.sequence = self._going_on(neuron, attached) or Sequence()
            step.sequence.ends.append(step.ends)
            self._sequence = ref(step.sequence)

    def _going_on(self, neuron: str, attached: bool) -> Sequence | None:
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
        if self.scaled.rule.time != "per_step":
            raise RuntimeError(
                f"{reset}; truncated back-propagation through time needs time='per_step', as "
                f"time={self.scaled.rule.time!r} takes the whole sequence in one backward pass"
            )
        if attached:
            raise RuntimeError(f"{reset}, or detach its state for truncated back-propagation through time")
        return None


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Step, scaled: Scaled) -> Tensor:
        # No save_for_backward: a checkpoint would compute it anew, when the traces have run on.
        ctx.step, ctx.scaled = step, scaled
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return _weight_gradient(ctx.step, ctx.scaled, *grad_outputs), None, None


def _weight_gradient(step: Step, scaled: Scaled, gradient: Tensor) -> Tensor:
    """g(G(t), R_hat); G(t) itself where no neuron has fired."""
    if step.ends is None or step.sequence is None:
        return gradient
    rule, sequence = scaled.rule, step.sequence
    weight = step.weight.to(step.spikes.dtype)
    sequence.record(scaled, weight)
    sequence.backpropagated = True
    if rule.time == "per_step":
        raw = of_all_processes([scaled.relate(step.ends, weight)], rule)
    else:
        raw = sequence.relation(scaled, weight)
    return scaled_sum(rule.scaling, rule.normalize, rule.alpha, [gradient], raw)


def _precision(x: Tensor) -> torch.dtype:
    """The relation's: autocast's own; a model in half precision of its own asks for float32."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return at_least_float32(x)
