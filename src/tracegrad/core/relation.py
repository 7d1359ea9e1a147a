"""Relations between the spikes at a synapse's two ends, Eq. 6 of Park et al. (2023)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from tracegrad.core.registry import Registry
from tracegrad.core.synapse import Geometry, geometry_of
from tracegrad.core.trace import spike_trace

Signal = Literal["trace", "spikes"]
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
    post_end: Literal["post", "pre"] = "post"

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ValueError(f"the sign of a term must be +1 or -1, not {self.sign!r}")
        for end in ("pre", "post"):
            if getattr(self, end) not in get_args(Signal):
                raise ValueError(f"the {end} signal of a term must be 'trace' or 'spikes', not {getattr(self, end)!r}")
        if self.post_end not in ("post", "pre"):
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
        synapse: an nn.Conv1d, nn.Conv2d or nn.Linear; only its geometry is used, not the values of its weight.

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


def relate(relation: Relation, time: TimeMode, geometry: Geometry, weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """The raw relation of one use of a synapse, before it is normalised.

    Args:
        relation: the terms to sum.
        time: "per_step": R(t) at every step; "mean": mean_t R(t); "final": R at the last step.
        geometry: of the synapse.
        weight: of the synapse; only its shape is used.
        pre: spikes at the synapse's input, [T, N, ...].
        post: spikes of the neuron behind it, in the shape of the synapse's output, [T, N, ...].

    Returns:
        [S, *weight.shape] with S = T for "per_step", else 1.
    """

    def correlation(term: Term) -> Tensor:
        ends = _signal(term.pre, pre), _signal(term.post, post if term.post_end == "post" else pre)
        return term.sign * _OVER_TIME[time](geometry, weight, *ends)

    return reduce(torch.add, map(correlation, relation))


def _signal(signal: Signal, spikes: Tensor) -> Tensor:
    return spike_trace(spikes) if signal == "trace" else spikes


def _per_step(geometry: Geometry, weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    return torch.stack([geometry.correlate(*ends, weight) for ends in zip(pre, post, strict=True)])


def _mean(geometry: Geometry, weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    return geometry.correlate(pre.flatten(0, 1), post.flatten(0, 1), weight)[None] / pre.shape[0]


def _final(geometry: Geometry, weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    return geometry.correlate(pre[-1], post[-1], weight)[None]


_OVER_TIME: dict[TimeMode, Callable[[Geometry, Tensor, Tensor, Tensor], Tensor]] = {
    "per_step": _per_step,
    "mean": _mean,
    "final": _final,
}

Normalization = Callable[[Tensor], Tensor]
"""Raw relations [S, *weight.shape] -> normalised ones, each of the S by itself."""


def _by_max(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().amax(tuple(range(1, raw.dim())), keepdim=True))


def _by_mean(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().mean(tuple(range(1, raw.dim())), keepdim=True))


def _by_neuron(raw: Tensor) -> Tensor:
    return _divide(raw, raw.abs().amax(tuple(range(2, raw.dim())), keepdim=True))


def _as_it_is(raw: Tensor) -> Tensor:
    return raw


def _divide(raw: Tensor, scale: Tensor) -> Tensor:
    # Silent ends make raw and scale zero: the relation is then zero, not NaN.
    return raw / torch.where(scale > 0, scale, 1.0)


NORMALIZATIONS: Registry[Normalization] = Registry("normalization")
NORMALIZATIONS.register("max", _by_max)
NORMALIZATIONS.register("mean", _by_mean)
NORMALIZATIONS.register("neuron", _by_neuron)
NORMALIZATIONS.register("none", _as_it_is)
