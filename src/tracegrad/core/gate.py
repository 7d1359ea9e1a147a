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
from typing import Any

import torch
from torch import Tensor

from tracegrad.core.calls import Call
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.spike_sums import Reading, correlate, correlate_spikes, in_steps, pack
from tracegrad.core.equations.spike_sums import current as current_of_spikes
from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.time_layout import TimeLayout
from tracegrad.core.torch_internals import whole
from tracegrad.events.choice import Way
from tracegrad.events.spikes import Spikes

Route = Callable[[Tensor], Tensor]
"""A neuron's spikes -> the post-synaptic signal [T, N, ...] in the shape of a current."""


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

    Nor does bfloat16 serve what is subtracted.
    """
    if not rule.normalize.subtracts and _autocasts(x) and torch.get_autocast_dtype(x.device.type) == torch.bfloat16:
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
        grad_bias = call.geometry.grad_bias(gradient, ctx.bias_shape) if needs_bias else None
        if not needs_weight:
            return call.geometry.grad_input(gradient, x, weight) if needs_x else None, None, grad_bias, None
        grad_input, grad_weight = _scaled(call, gradient, x, weight, post, spikes, needs_x)
        return grad_input, grad_weight, grad_bias, None


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


def _scaled(
    call: Call,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    post: Tensor | None,
    spikes: Spikes | None,
    needs_x: bool,
) -> tuple[Tensor | None, Tensor]:
    """The gradient of x, and the scaled one of the weight."""
    synapse, rule = call.synapse, call.synapse.rule
    activity = call.activity(x, weight, post, spikes)
    if activity is None:
        synapse.unreached(synapse.name)
    elif synapse.witness is not None:
        synapse.witness(call, activity, call.layout.split(gradient, call.time_steps))
    if activity is None or rule.factor is not None or rule.apply == "event":
        grad_input, (total,) = _gradients(call, gradient, x, weight, spikes, needs_x, each_step=False)
        if activity is None:
            return grad_input, total
        if rule.factor is not None:
            return grad_input, rule.factor * total
        steps = call.layout.split(gradient, call.time_steps)
        return grad_input, rule.with_events(total, activity, steps, call.mean_factor(activity))
    raw = call.relation(activity)
    grad_input, parts = _gradients(call, gradient, x, weight, spikes, needs_x, each_step=len(raw) > 1)
    return grad_input, synapse.scaled(parts, raw, call.geometry)


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
