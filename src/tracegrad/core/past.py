"""What a call of a synapse begins with where its network goes step by step: the traces at its two ends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from tracegrad.core.equations.trace import at_least_float32, traces
from tracegrad.core.gate import Firing, close_gate
from tracegrad.core.torch_internals import Node, is_in_backward_pass
from tracegrad.core.unpicklable import eager


class Past:
    """The trace at one end of a synapse, from call to call (Eq. 5)."""

    def __init__(self) -> None:
        self._trace: Tensor | None = None

    def clear(self) -> None:
        """A sequence starts."""
        self._trace = None

    def advance(self, spikes: Tensor) -> list[Tensor]:
        """Takes the spikes of the next steps, [n, N, ...]; returns their traces."""
        found = traces(spikes.detach().to(at_least_float32(spikes)), self._trace)
        self._trace = found[-1]
        return found


@dataclass
class Totals:
    """The spikes of one sequence at both ends of a synapse, added up over its steps.

    Attributes:
        steps: how many there were.
        pre: the sum of the spikes that came in, [N, ...].
        post: of those of the neuron, [N, ...].
    """

    steps: int = 0
    pre: Tensor = field(default_factory=lambda: torch.zeros(()))
    post: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, pre: Tensor, post: Tensor) -> None:
        """Adds the spikes of further steps, [n, N, ...]."""
        self.steps += len(pre)
        self.pre = self.pre.to(pre.device) + pre.sum(0, dtype=at_least_float32(pre))
        self.post = self.post.to(post.device) + post.sum(0, dtype=at_least_float32(post))


@dataclass
class Run:
    """One sequence of a neuron.

    Attributes:
        steps: how many of its steps the neuron has fired.
        closed: the nodes behind its spikes, as long as their graph lives.
    """

    steps: int = 0
    closed: list[ref[Node]] = field(default_factory=list[ref[Node]])

    @eager
    def close(self, spikes: Tensor, feedbacks: list[Tensor], firing: Firing) -> Tensor:
        """The spikes of further steps, as from `close_gate`."""
        spikes = close_gate(spikes, feedbacks, firing)
        if spikes.grad_fn is not None:
            self.closed = [node for node in self.closed if node() is not None]
            self.closed.append(ref(spikes.grad_fn))
        return spikes

    def reaches_loss(self) -> bool:
        """Whether spikes of it reach the loss of the backward pass that is running."""
        nodes = (node() for node in self.closed)
        return any(node is not None and is_in_backward_pass(node) for node in nodes)


@dataclass(frozen=True)
class Handed:
    """The spikes of one step that a neuron hands to the synapses before it.

    Attributes:
        neuron: its name.
        spikes: in the shape of the synapse's current, [N, ...].
        trace: at this step, of the same shape.
        run: the sequence that they belong to.
        step: their number in it, from 0.
        attached: whether the neuron's state came with a graph behind it.
    """

    neuron: str
    spikes: Tensor
    trace: Tensor
    run: Run
    step: int
    attached: bool

    @property
    def starts(self) -> bool:
        """Whether a sequence starts here."""
        return self.step == 0


class Sequence:
    """The steps of a synapse that await one backward pass; it lives as long as their graph.

    For "mean" and "final" it holds R of all of them, summed while the spikes pass by.
    """

    def __init__(self) -> None:
        self.first = 0
        self.steps = 0
        self.backpropagated = False
        self._calls: list[ref[Any]] = []
        self._raw: Callable[[], Tensor] | None = None
        self._of_all: list[Tensor] | None = None
        self._recorded: dict[int, Tensor] = {}

    def append(self, call: object, first: int, steps: int) -> None:
        """Goes on by the steps of a call, which its graph keeps."""
        self.first = self.first if self._calls else first
        self.steps += steps
        self._calls.append(ref(call))
        self._of_all = None

    def calls(self) -> Iterator[Any]:
        """The calls whose graphs live."""
        found = (call() for call in self._calls)
        return (call for call in found if call is not None)

    def add(self, raw: Tensor) -> None:
        """Adds R of further steps."""
        total = raw if self._raw is None else self._raw() + raw
        self.replace(lambda: total)

    def replace(self, raw: Callable[[], Tensor]) -> None:
        """R is another one; it is computed when it is asked for."""
        self._raw, self._of_all = raw, None

    @property
    def total(self) -> Tensor:
        """R of what was added."""
        assert self._raw is not None  # noqa: S101 - a step was added before its backward pass
        return self._raw()

    def of_all_steps(self, compute: Callable[["Sequence"], list[Tensor]]) -> list[Tensor]:
        """What is the same for all its steps, which the first call computes that a backward pass comes to."""
        if self._of_all is None:
            self._of_all = compute(self)
        return self._of_all

    def record(self, step: int, relations: Tensor) -> Tensor:
        """Keeps R_hat of a call, [n, *weight.shape]; returns those of all calls so far, in their order."""
        self._recorded[step] = relations
        return torch.cat([self._recorded[each] for each in sorted(self._recorded)])
