"""The two-ended gate: scales the gradient of a synapse's weight by what happens where its current arrives.

The scale depends on the spikes of the post-synaptic neuron, which fires later in the forward pass than the synapse
acts. No registry carries those spikes back; an autograd edge does:

    z, token = open(x, W, b)      z the synaptic current; token a zero shaped like z that takes no memory
    s' = close(s, token)          the identity on the neuron's spikes s

    backward of close             hands s to the token as its "gradient"
    backward of open              has x, W, dL/dz and now s: correlates the traces of x and s, and scales the
                                  weight's gradient

Autograd orders this per use of the synapse: two neurons behind one current deliver the sum of their spikes (the
relation is linear in them), checkpoints recompute what they dropped, and nothing outlives the graph. A token that
reached no neuron brings no spikes, and the gradient stays as it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tracegrad.core.relation import Normalization, Relation, TimeMode, normalized, relate
from tracegrad.core.scaling import Scaling, scaled_sum
from tracegrad.core.signals import SignalReader
from tracegrad.core.synapse import Geometry
from tracegrad.core.trace import at_least_float32

Record = Callable[[Tensor], None]


@dataclass(frozen=True)
class Rule:
    """How gradients are scaled: Eqs. 6 and 7 with everything chosen that they leave open."""

    alpha: float
    relation: Relation
    normalize: Normalization
    scaling: Scaling
    time: TimeMode
    sync: bool
    relation_batch: float

    def sample_size(self, batch: int) -> int:
        """How many of the examples the relation is computed of."""
        return math.ceil(self.relation_batch * batch)


def open_gate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    rule: Rule,
    time_steps: int,
    record: Record | None,
    reader: SignalReader,
) -> tuple[Tensor, Tensor]:
    """The synaptic current of `x`, and the token by which the post-synaptic spikes come back.

    Args:
        x: pre-synaptic spikes, time-major: [T, B, ...] or folded, [T * B, ...].
        weight: of the synapse.
        bias: of the synapse.
        geometry: of the synapse.
        rule: how the weight's gradient is scaled.
        time_steps: T.
        record: called in the backward pass with the normalised relation.
        reader: of the signals at the ends of all synapses of one forward pass.

    Returns:
        The current, and a token of its shape for `close_gate`.
    """
    return _Open.apply(x, weight, bias, geometry, rule, time_steps, record, reader)  # pyright: ignore[reportReturnType]


def close_gate(spikes: Tensor, tokens: list[Tensor], clone: bool) -> Tensor:
    """The spikes themselves, tied to the tokens of the currents that drove their neuron.

    Args:
        spikes: of the post-synaptic neuron, [T, B, ...].
        tokens: of `open_gate`, each with as many elements as `spikes`, in the same order.
        clone: return a copy, which may be written in place; else a view.
    """
    return _Close.apply(spikes, clone, *tokens)  # pyright: ignore[reportReturnType]


class _Open(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        rule: Rule,
        time_steps: int,
        record: Record | None,
        reader: SignalReader,
    ) -> tuple[Tensor, Tensor]:
        # Inside a Function autocast leaves its hands off what is saved: cast once, here, as it would have.
        ctx.autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
        if ctx.autocast:
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        ctx.geometry, ctx.rule, ctx.time_steps, ctx.record, ctx.reader = geometry, rule, time_steps, record, reader
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        current = geometry.current(x, weight, bias)
        return current, current.new_zeros(()).expand(current.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, spikes = grad_outputs
        no_options = (None,) * 5
        if gradient is None:
            return None, None, None, *no_options
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        return (
            ctx.geometry.input_gradient(gradient, x, weight) if for_x else None,
            _weight_gradient(ctx, gradient, spikes, x, weight) if for_weight else None,
            ctx.geometry.bias_gradient(gradient) if for_bias else None,
            *no_options,
        )


class _Close(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, clone: bool, *tokens: Tensor) -> Tensor:
        ctx.save_for_backward(spikes)
        ctx.token_shapes = [token.shape for token in tokens]
        return spikes.clone() if clone else spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (spikes,) = ctx.saved_tensors
        return *grad_outputs, None, *(spikes.reshape(shape) for shape in ctx.token_shapes)


def _weight_gradient(ctx: Any, gradient: Tensor, spikes: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    """DW = g(G, R_hat) of one use of the synapse (Eq. 7)."""
    geometry, rule = ctx.geometry, ctx.rule
    if spikes is None:
        return geometry.correlate(x, gradient, weight)
    over_time = (ctx.time_steps, -1)
    pre, post = x.unflatten(0, over_time), spikes.unflatten(0, over_time)
    # Autocast's own precision serves the relation too; a model in half precision of its own asks for float32.
    precision = x.dtype if ctx.autocast else at_least_float32(x)
    sample = slice(rule.sample_size(pre.shape[1]))
    ends = pre[:, sample].to(precision), post[:, sample].to(precision)
    raw = of_all_processes(relate(rule.relation, rule.time, geometry, weight.to(precision), *ends, ctx.reader), rule)
    if ctx.record is not None:
        relations = torch.stack([normalized(rule.normalize, step) for step in raw])
        ctx.record(relations if rule.time == "per_step" else relations[0])
    if rule.time == "per_step":
        steps = zip(pre, gradient.unflatten(0, over_time), strict=True)
        gradients = [geometry.correlate(*ends, weight) for ends in steps]
    else:
        gradients = [geometry.correlate(x, gradient, weight)]
    return scaled_sum(rule.scaling, rule.normalize, rule.alpha, gradients, raw)


def of_all_processes(raw: list[Tensor], rule: Rule) -> list[Tensor]:
    """The raw relations, summed over all processes where the rule says so."""
    if not (rule.sync and dist.is_available() and dist.is_initialized()):
        return raw
    total = torch.stack(raw).to(at_least_float32(raw[0]))
    dist.all_reduce(total)
    return list(total)
