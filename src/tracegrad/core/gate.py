"""The two-ended gate: scales the gradient of a synapse's weight by what happens where its current arrives.

The scale depends on the spikes of the post-synaptic neuron, which fires later in the forward pass than the synapse
acts. No registry carries those spikes back; an autograd edge does:

    z, feedback = open(x, W, b)    z the synaptic current; feedback a zero [T, N, ...] that takes no memory
    s' = close(s, feedback)        the identity on the neuron's spikes s

    backward of close              hands s to the feedback as its "gradient"
    backward of open               has x, W, dL/dz and now s: correlates the traces of x and s, and scales the
                                   weight's gradient

Autograd orders this per use of the synapse: two neurons behind one current deliver the sum of their spikes (the
relation is linear in them), checkpoints recompute what they dropped, and nothing outlives the graph. Feedback that
reached no neuron brings no spikes, and the gradient stays as it is.

A call of a synapse covers T >= 1 steps and begins with a past, the traces at its two ends; a whole sequence has none.
Where synapse or neuron are called step by step, the neuron hands over its spikes when it fires (`core.past`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.equations.masking import StepMask
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.signals import SignalReader, SpikeTrain
from tracegrad.core.equations.spike_sums import Reading, correlate, correlate_spikes, in_steps, pack
from tracegrad.core.equations.spike_sums import current as current_of_spikes
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.processes import ProcessSum
from tracegrad.core.time_layout import TimeLayout
from tracegrad.core.torch_internals import whole
from tracegrad.events.choice import NOT_CALLED, Mode, Way
from tracegrad.events.spikes import Spikes

Record = Callable[[Tensor], None]
"""Keeps a normalised relation."""
Route = Callable[[Tensor], Tensor]
"""A neuron's spikes -> the post-synaptic signal [T, N, ...] in the shape of a current."""


@dataclass
class Synapse:
    """What is the same for all calls of a synapse.

    Attributes:
        name: of the synapse.
        rule: how its gradient is scaled.
        events: when its currents, gradients and relations are summed over spikes.
        sum_processes: adds up R over processes; None where each keeps its own.
        record: called with R_hat in each backward pass, if at all.
        unreached: called where a neuron's spikes do not reach the loss.
        way: what its last call took.
    """

    name: str
    rule: Rule
    events: Mode
    sum_processes: ProcessSum | None
    record: Record | None
    unreached: Callable[[str], None]
    way: Way = NOT_CALLED

    def reduced(self, raw: list[Tensor], place: str = "") -> list[Tensor]:
        """The raw relations, added up over all processes if asked for; `place` says where in a sequence they are."""
        return raw if self.sum_processes is None else self.sum_processes(self.name + place, raw)


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

    def relation(self, x: Tensor, weight: Tensor, post: Tensor | None, spikes: Spikes | None) -> list[Tensor] | None:
        """R, raw: of each step for "per_step", else one; None if the neuron's spikes do not reach the loss.

        Args:
            x: the synapse's input.
            weight: of the synapse; only its shape is used.
            post: what came over the feedback edge, [T, N, ...].
            spikes: x, packed, where the event kernels serve it.
        """
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

    def relation(self, x: Tensor, weight: Tensor, post: Tensor | None, spikes: Spikes | None) -> list[Tensor] | None:
        """As `Call.relation`."""
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
        ends = SpikeTrain(pre, packed=packed), SpikeTrain(post)
        weight = weight.to(self.precision)
        activity = Activity(self.geometry, weight, *ends, self.reader, weights, counted, self.synapse.events)
        raw = self.synapse.reduced(rule.relate(rule.time, activity))
        if self.synapse.record is not None:
            relations = torch.stack([rule.normalized(step, self.geometry.weight_layout) for step in raw])
            self.synapse.record(relations if rule.time == "per_step" else relations[0])
        return raw


@dataclass(frozen=True)
class Firing:
    """One call of a neuron whose spikes go back to the synapses before it.

    Attributes:
        layout: where time is in its spikes.
        time_steps: T.
        routes: for each feedback, what the spikes pass on their way back; None for nothing.
        clone: return a copy of the spikes, which may be written in place; else a view.
    """

    layout: TimeLayout
    time_steps: int
    routes: tuple[Route | None, ...] = ()
    clone: bool = False


def open_gate(x: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> tuple[Tensor, Tensor]:
    """The synaptic current of `x`, and the feedback by which the post-synaptic spikes come back.

    Args:
        x: pre-synaptic spikes, in the call's layout.
        weight: of the synapse.
        bias: of the synapse.
        call: what else is known of this call.

    Returns:
        The current, and the feedback, [T, N, ...], for `close_gate`.
    """
    return _Open.apply(x, weight, bias, call)  # pyright: ignore[reportReturnType]


def close_gate(spikes: Tensor, feedbacks: Sequence[Tensor], firing: Firing) -> Tensor:
    """The spikes themselves, tied to the currents that drove their neuron.

    Args:
        spikes: of the post-synaptic neuron.
        feedbacks: of `open_gate`, each with as many elements as `spikes` unless it has a route, in the same order.
        firing: how the spikes lie in time, and what they pass on their way back.
    """
    return _Close.apply(spikes, firing, *feedbacks)  # pyright: ignore[reportReturnType]


def relation_precision(x: Tensor, rule: Rule) -> torch.dtype:
    """Of the relation: autocast's bfloat16, else that of x, float32 at least: half precision never adds R up.

    Nor does bfloat16 serve moments, whose differences are small.
    """
    if not rule.needs_moments and _autocasts(x) and torch.get_autocast_dtype(x.device.type) == torch.bfloat16:
        return torch.bfloat16
    return at_least_float32(x)


def _autocasts(x: Tensor) -> bool:
    device = x.device.type  # there is no autocast for the meta device
    return x.dtype != torch.float64 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> tuple[Tensor, Tensor]:
        # Inside a Function autocast does not touch what is saved: cast once, here, as it would have.
        given, dtype = (weight, bias), torch.get_autocast_dtype(x.device.type) if _autocasts(x) else x.dtype
        spikes = pack(call.geometry, x, weight, call.synapse.events)
        # Spikes are summed over by what is given: its rounding is the event kernels' own.
        current = None if spikes is None else current_of_spikes(call.geometry, spikes, x, *given, dtype)
        if not torch.compiler.is_compiling():
            call.synapse.way = Way(None if spikes is None else spikes.rate, current is not None)
        if _autocasts(x):
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        ctx.call, ctx.bias_shape = call, None if bias is None else bias.shape
        ctx.set_materialize_grads(False)
        ctx.packed = None if spikes is None else spikes.facts
        ctx.save_for_backward(x, weight, None if spikes is None else spikes.bits)
        current = whole(call.geometry.current(x, weight, bias) if current is None else current)
        return current, call.layout.split(current.new_zeros(()).expand(current.shape), call.time_steps)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, post = grad_outputs
        if gradient is None:
            return None, None, None, None
        x, weight, bits = ctx.saved_tensors
        # Gradients of gradients need a graph, which sums over spikes have not.
        spikes = None if bits is None or torch.is_grad_enabled() else Spikes(bits, *ctx.packed)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        call = ctx.call
        raw = call.relation(x, weight, post, spikes) if needs_weight else None
        if needs_weight and raw is None:
            call.synapse.unreached(call.synapse.name)
        grad_bias = call.geometry.grad_bias(gradient, ctx.bias_shape) if needs_bias else None
        if not needs_weight:
            return call.geometry.grad_input(gradient, x, weight) if needs_x else None, None, grad_bias, None
        each_step = raw is not None and len(raw) > 1
        grad_input, parts = _gradients(call, gradient, x, weight, spikes, needs_x, each_step)
        total = parts[0] if raw is None else call.synapse.rule.scaled_sum(parts, raw, call.geometry.weight_layout)
        return grad_input, total, grad_bias, None


class _Close(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, firing: Firing, *feedbacks: Tensor) -> Tensor:
        ctx.save_for_backward(spikes)
        ctx.firing, ctx.shapes = firing, [feedback.shape for feedback in feedbacks]
        return spikes.clone() if firing.clone else spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (spikes,), firing = ctx.saved_tensors, ctx.firing
        back: list[Tensor] = []
        for shape, route in zip(ctx.shapes, firing.routes, strict=True):
            post = firing.layout.split(spikes, firing.time_steps) if route is None else route(spikes)
            back.append(post.reshape(shape))
        return *grad_outputs, None, *back


def _gradients(
    call: Call, gradient: Tensor, x: Tensor, weight: Tensor, spikes: Spikes | None, needs_x: bool, each_step: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of x, and those of the weight: G(t) of each step (Eq. 7 scales each by itself), or G."""
    geometry = call.geometry
    in_half = x.dtype == torch.float16 and x.device.type == "cpu"
    over_spikes = None
    if spikes is not None and not each_step:
        over_spikes = correlate_spikes(geometry, Reading(x, spikes), Reading(gradient), weight)
    if needs_x and over_spikes is None and not each_step and not in_half:
        grad_input, total = geometry.gradients(gradient, x, weight)
        return grad_input, [total]
    grad_input = geometry.grad_input(gradient, x, weight) if needs_x else None
    if over_spikes is not None:
        return grad_input, [over_spikes]
    if in_half:  # PyTorch adds up weight gradients in fp16 here: 1.5 % off
        x, weight, gradient = x.float(), weight.float(), gradient.float()
    if not each_step:
        return grad_input, [geometry.correlate(x, gradient, weight)]
    packed = None if spikes is None else in_steps(spikes, x, weight, call.layout, call.time_steps)
    ends = (call.layout.split(end, call.time_steps) for end in (x, gradient))
    steps = enumerate(zip(*ends, strict=True))
    parts = [packed and packed.part(step, call.time_steps) for step in range(call.time_steps)]
    return grad_input, [correlate(geometry, Reading(s, parts[t]), Reading(g), weight) for t, (s, g) in steps]
