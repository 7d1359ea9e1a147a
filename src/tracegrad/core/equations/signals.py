"""The signals that a relation correlates: spikes, and their traces over all steps."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from tracegrad.core.compiled import compiled, flatten_steps, order_to_compile, unflatten_steps
from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.equations.moments import sums_over_examples
from tracegrad.core.equations.spike_sums import pack
from tracegrad.core.equations.trace import at_least_float32, traces
from tracegrad.core.torch_internals import after_backward_pass, in_backward_pass, version_of
from tracegrad.events.choice import Mode
from tracegrad.events.spikes import Spikes

Signal = Literal["trace", "spikes"]
Result = TypeVar("Result")

End = Literal["post", "pre"]

REMEMBERED = 6
"""So many spike trains suffice in a residual block: of its input, its two neurons, and what a control makes of them."""


@dataclass(frozen=True)
class SpikeTrain:
    """The spikes at one end of a synapse.

    Attributes:
        spikes: [T, N, ...].
        trace: of these spikes, where it is known already; else they start a sequence.
        packed: the images of all steps, [T * N, ...], where they are known already.
    """

    spikes: Tensor
    trace: Tensor | None = None
    packed: Spikes | None = None


class SignalReader:
    """Reads signals from spike trains; those that it read last in a backward pass are not computed again.

    The trace behind a synapse is the trace before the next one: in one backward pass each is read several times.
    """

    def __init__(self) -> None:
        self._remembered: dict[Hashable, tuple[Tensor, dict[Hashable, Any]]] = {}

    def read(self, signal: Signal, train: SpikeTrain) -> Tensor:
        """The signal at every step, [T, N, ...]."""
        if signal == "spikes":
            return train.spikes
        return self._compute(_trace, train.spikes) if train.trace is None else train.trace

    def read_sums(self, signal: Signal, train: SpikeTrain, first: int) -> Tensor:
        """The sums over all examples of the signal and of its square from step `first` on; in float32 at least."""

        def sums() -> Tensor:
            steps = self.read(signal, train)[first:]
            return sums_over_examples(steps, steps.new_ones(steps.shape[:2], dtype=at_least_float32(steps)))

        return sums() if train.trace is not None else self.remember(("sums", signal, first), train.spikes, sums)

    def pack(self, geometry: Geometry, train: SpikeTrain, weight: Tensor, mode: Mode) -> Spikes | None:
        """The spikes of all steps, packed as `geometry` has them, in the order [T * N, ...]; else None."""

        def packed() -> Spikes | None:
            return train.packed or pack(geometry, train.spikes.flatten(0, 1), weight, mode)

        return self.remember((weight.dim(), mode), train.spikes, packed)

    def read_last(self, signal: Signal, train: SpikeTrain) -> Tensor:
        """The signal at the last step, [N, ...]."""
        return self._compute(_last_trace, train.spikes)[0] if signal == "trace" else train.spikes[-1]

    def read_reversed(self, pre: Signal, post: Signal, train: SpikeTrain, weights: Tensor | None = None) -> Tensor:
        """Y(t): the post-synaptic signal, and what of it is still to come when the pre-synaptic neuron fires.

        Y(t) = sum over t' >= t of decay^(t'-t) w(t') P(t') where the pre-synaptic signal is a trace, else w(t) P(t).

        Args:
            pre: the pre-synaptic signal.
            post: the post-synaptic signal, P.
            train: of the post-synaptic neuron.
            weights: w, [T, N, 1, ...]; None for 1.
        """
        if weights is not None:
            return self._compute(_reversed, self.read(post, train) * weights, pre, "spikes")
        return self._compute(_reversed, train.spikes, pre, post)

    def _compute(self, equations: Callable[..., Tensor], spikes: Tensor, *constants: Signal) -> Tensor:
        return self.remember((equations, constants), spikes, lambda: over_time(equations, spikes, *constants))

    def remember(self, what: Hashable, spikes: Tensor, compute: Callable[[], Result]) -> Result:
        """What `compute` makes of these spikes; `what` names it."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not in_backward_pass():
            return compute()  # no addresses there; no graphs are shared
        if not self._remembered:
            after_backward_pass(self._remembered.clear)
        key = spikes.data_ptr(), version_of(spikes), spikes.dtype, spikes.shape, spikes.stride()
        # The spikes are kept, too: as long as they are, their memory is not given to others.
        _, results = self._remembered[key] = self._remembered.pop(key, None) or (spikes, {})
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        if what not in results:
            results[what] = compute()
        return results[what]


def over_time(equations: Callable[..., Tensor], spikes: Tensor, *constants: Signal) -> Tensor:
    """Equations for spikes of any layout, compiled where that pays and no graph is needed."""
    order = order_to_compile(spikes)
    if order is None:
        return equations(*constants, len(spikes), spikes)
    steps = compiled(equations, *constants, len(spikes))(flatten_steps(spikes, order))
    return unflatten_steps(steps, spikes, order)


def _trace(_: int, spikes: Tensor) -> Tensor:
    return torch.stack([step.to(spikes.dtype) for step in traces(_steps(spikes))])


def _last_trace(_: int, spikes: Tensor) -> Tensor:
    return traces(_steps(spikes))[-1].to(spikes.dtype)[None]


def _reversed(pre: Signal, post: Signal, _: int, spikes: Tensor) -> Tensor:
    steps = _steps(spikes)
    signal = traces(steps) if post == "trace" else steps
    to_come = traces(signal[::-1])[::-1] if pre == "trace" else signal
    return torch.stack([step.to(spikes.dtype) for step in to_come])


def _steps(spikes: Tensor) -> list[Tensor]:
    """The steps, in float32 at least while a trace is added up."""
    return [step.to(at_least_float32(step)) for step in spikes]
