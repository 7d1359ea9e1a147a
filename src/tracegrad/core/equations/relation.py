"""Relations between the spikes at a synapse's two ends, Eq. 6 of Park et al. (2023)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from tracegrad.core.equations.activity import Activity
from tracegrad.core.equations.layers import geometry_of
from tracegrad.core.equations.moments import sums_of_ends
from tracegrad.core.equations.signals import End, Signal
from tracegrad.core.equations.spike_sums import Reading
from tracegrad.core.equations.trace import DECAY
from tracegrad.core.registry import Registry
from tracegrad.events.onto import NOTHING, Onto

TimeMode = Literal["per_step", "mean", "final"]


@dataclass(frozen=True)
class Term:
    """One signed correlation of a relation: sign * correlate(pre signal, post signal).

    Args:
        sign: +1 or -1.
        pre: what is read at the pre-synaptic end, "trace" (Eq. 5) or "spikes".
        post: what is read at the post-synaptic end, "trace" or "spikes".
        post_end: whose signal stands at the post-synaptic end: that of the neuron there ("post"), or the
            pre-synaptic one again ("pre"), which asks for two ends of one shape.

    Raises:
        ValueError: one of them is none of these.
    """

    sign: int
    pre: Signal = "trace"
    post: Signal = "trace"
    post_end: End = "post"

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ValueError(f"the sign of a term must be +1 or -1, not {self.sign!r}")
        for end in ("pre", "post"):
            if getattr(self, end) not in get_args(Signal):
                raise ValueError(f"the {end} signal of a term must be 'trace' or 'spikes', not {getattr(self, end)!r}")
        if self.post_end not in get_args(End):
            raise ValueError(f"the post_end of a term must be 'post' or 'pre', not {self.post_end!r}")


Relation = tuple[Term, ...]

RELATIONS: Registry[Relation] = Registry("relation")


def register_relation(name: str, terms: Relation) -> Relation:
    """Makes the sum of `terms` available as `relation=name`; every time mode and fast path serves it.

    Raises:
        ValueError: no term, or the name is taken.
        TypeError: something in `terms` is not a Term.
    """
    if not terms:
        raise ValueError(f"relation {name!r} needs one Term at least")
    for term in terms:
        if not isinstance(term, Term):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not always typed
            raise TypeError(f"relation {name!r} is a tuple of Terms; {term!r} is none")
    return RELATIONS.register(name, tuple(terms))


register_relation("positive", (Term(+1, pre="trace", post="trace"),))
register_relation("causal", (Term(+1, pre="trace", post="spikes"),))
register_relation("anticausal", (Term(+1, pre="spikes", post="trace"),))
register_relation("stdp", (Term(+1, pre="trace", post="spikes"), Term(-1, pre="spikes", post="trace")))
register_relation("coincidence", (Term(+1, pre="spikes", post="spikes"),))
# Both traces from the pre-synaptic neuron: what the authors' public code computes.
register_relation("pre_pre", (Term(+1, pre="trace", post="trace", post_end="pre"),))


def needs_equal_ends(relation: Relation) -> bool:
    """Whether the relation is defined only where both ends of a synapse have one shape."""
    return any(term.post_end == "pre" for term in relation)


def correlate(pre: Tensor, post: Tensor, synapse: nn.Module) -> Tensor:
    """Correlates the signals at the two ends of a synapse (Eq. 6); the weight-gradient operation.

    Convolution: R[o,i,k] = sum over b, p of post[b,o,p] * pre[b,i, p*stride + k*dilation - padding];
    fully connected: R[o,i] = sum over b of post[b,o] * pre[b,i].

    Args:
        pre: [N, C_in, ...] at a convolution's input; [N, ..., features] at a linear layer's.
        post: [N, C_out, ...], shaped like the synapse's output for `pre`.
        synapse: a convolution, transposed or not, or a linear layer; only its geometry is used.

    Returns:
        A tensor shaped like `synapse.weight`.

    Raises:
        TypeError: another kind of layer.
        ValueError: shapes that do not fit the synapse, two types of number, or padding other than zeros.
    """
    if pre.dtype != post.dtype or not pre.is_floating_point():
        raise ValueError(f"pre and post must be of one floating-point type, not {pre.dtype} and {post.dtype}")
    geometry = geometry_of(synapse)
    weight = torch.empty_like(cast(Tensor, synapse.weight), dtype=pre.dtype)
    dimensions = max(weight.dim(), 2)
    if pre.dim() < dimensions:
        raise ValueError(f"pre needs at least {dimensions} dimensions for {synapse}, not shape {list(pre.shape)}")
    try:
        expected = geometry.current(pre.detach().to("meta"), weight.to("meta"), None).shape
    except RuntimeError as error:
        raise ValueError(f"pre of shape {list(pre.shape)} does not fit {synapse}: {_first_line(error)}") from None
    if post.shape != expected:
        raise ValueError(
            f"post has shape {list(post.shape)}, but {synapse} turns pre of shape {list(pre.shape)} "
            f"into {list(expected)}"
        )
    return geometry.correlate(pre, post, weight)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def relate(relation: Relation, time: TimeMode, activity: Activity) -> list[Tensor]:
    """The raw relation of one use of a synapse, before it is normalised.

    Args:
        relation: the terms to sum.
        time: "per_step": R(t) at every step; "mean": mean_t R(t); "final": R at the last step.
        activity: at the synapse's two ends.

    Returns:
        Tensors shaped like the weight: T of them for "per_step", else 1.
    """
    if time == "per_step":
        return _per_step(relation, activity)
    if time == "final" and activity.weights is None:
        return [_summed_terms(relation, activity, activity.last)]
    return [_summed(relation, activity)]


_Read = Callable[[Signal, End], Reading]
"""Reads the signal at one end, at one step."""


def _summed_terms(relation: Relation, activity: Activity, read: _Read, weights: Tensor | None = None) -> Tensor:
    """R(t) = sum over the terms of sign * correlate(pre signal, w(t) post signal) (Eq. 6), read at step t by `read`."""

    def correlation(term: Term) -> Tensor:
        pre, post = read(term.pre, "pre"), read(term.post, term.post_end)
        return _signed(term.sign, activity.correlate(pre, post if weights is None else Reading(post.value * weights)))

    return reduce(torch.add, map(correlation, relation))


def _per_step(relation: Relation, activity: Activity) -> list[Tensor]:
    weights = activity.signal_weights
    if weights is None and _is_faster_over_spikes(relation, activity):
        return _per_step_over_spikes(activity)

    def at(step: int) -> Tensor:
        read = partial(activity.at, step=step)
        return _summed_terms(relation, activity, read, None if weights is None else weights[step])

    return [at(step) for step in range(activity.time_steps)]


def _is_faster_over_spikes(relation: Relation, activity: Activity) -> bool:
    """Whether R is that of two traces which start here, of spikes so rare that `_per_step_over_spikes` pays."""
    if relation != (Term(+1, pre="trace", post="trace"),) or activity.time_steps == 1:
        return False
    return activity.pre.trace is None and activity.post.trace is None and activity.two_sums_pay()


def _per_step_over_spikes(activity: Activity) -> list[Tensor]:
    """R(t) of two traces by sums over spikes alone, as both traces decay alike.

    R(t) = decay^2 R(t-1) + correlate(s_pre(t), X_post(t)) + decay correlate(X_pre(t-1), s_post(t))
    """
    relations: list[Tensor] = []
    for step in range(activity.time_steps):
        onto = Onto(factor=DECAY**2, previous=relations[-1]) if step else NOTHING
        relation = activity.correlate(activity.at("spikes", "pre", step), activity.at("trace", "post", step), onto)
        if step:
            ends = activity.at("trace", "pre", step - 1), activity.at("spikes", "post", step)
            relation = activity.correlate(*ends, Onto(scale=DECAY, factor=1, previous=relation))
        relations.append(relation)
    return relations


def _summed(relation: Relation, activity: Activity) -> Tensor:
    """The mean or a weighted sum of R(t) by one correlation, in which the pre-synaptic trace never has to exist.

    sum_t w(t) correlate(X_pre(t), P(t)) = sum_t correlate(s_pre(t), Y(t)), with
    Y(t) = sum over t' >= t of decay^(t'-t) w(t') P(t').
    """
    weights = activity.signal_weights
    reversed_signals = [
        _signed(term.sign, activity.reader.read_reversed(term.pre, term.post, activity.end(term.post_end), weights))
        for term in relation
    ]
    total = reduce(torch.add, reversed_signals).flatten(0, 1)
    summed = activity.correlate(Reading(activity.pre.spikes.flatten(0, 1), activity.spikes("pre")), Reading(total))
    return summed / activity.time_steps if weights is None else summed


def relate_moments(relation: Relation, time: TimeMode, activity: Activity) -> list[Tensor]:
    """As `relate`, but the `Moments` of each term, [terms, 6, *weight], instead of R.

    Of "mean" all sums are sums over the steps, of "final" those of the last step.
    """
    each = [_moments(term, time, activity) for term in relation]
    return [torch.stack(step) for step in zip(*each, strict=True)]


def _moments(term: Term, time: TimeMode, activity: Activity) -> list[Tensor]:
    """The `Moments` of one term, stacked: T of them for "per_step", else 1."""
    products = torch.stack(relate((replace(term, sign=+1),), time, activity))
    last = time == "final" and activity.weights is None  # else they say which step is the last one
    first = activity.time_steps - 1 if last else 0
    sums = [activity.sums(term.pre, "pre", first), activity.sums(term.post, term.post_end, first)]
    sums.append(activity.number[first:])
    if time == "mean" and activity.weights is None:
        sums = [each.mean(0, keepdim=True) for each in sums]
    elif time != "per_step":
        sums = [each.sum(0, keepdim=True) for each in sums]
    of_ends = sums_of_ends(activity.geometry, activity.weight, *sums)
    return list(torch.cat([products[:, None].to(of_ends), of_ends], 1))


def _signed(sign: int, x: Tensor) -> Tensor:
    return x if sign > 0 else -x
