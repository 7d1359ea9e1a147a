"""What watches the neurons that keep a state: their traces step by step, and where their sequences start.

Its values tell that, so it runs outside of compiled graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import spikes_of
from tracegrad.core.state import StateWatch
from tracegrad.core.steps import RunningTrace
from tracegrad.core.trace import at_least_float32
from tracegrad.core.unpicklable import Unpicklable, eager

if TYPE_CHECKING:
    from tracegrad.core.installation import Installation


class StepwiseNeuron(Unpicklable):
    """Forward hooks of a neuron that is called step by step: its traces, and what they mean to the synapses before it.

    Its `before` sees the state that a call goes on with, its `after` the spikes.
    """

    def __init__(self, installation: Installation, name: str, neuron: nn.Module) -> None:
        self.installation = installation
        self.name = name
        self.sources = installation.pairing.steps_of(name)
        self.watch = StateWatch(neuron)
        self.trace = RunningTrace()
        self.state: list[Tensor] = []
        self.precision = torch.float32

    @eager
    def before(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Looks at the state that the call goes on with."""
        if self.sources and self.installation.session is not None:
            self.state = self.watch.before(neuron, arguments, keywords)
            self.precision = at_least_float32(arguments[0] if arguments else next(iter(keywords.values())))

    @eager
    def after(self, neuron: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        """Tells the spikes to the synapses."""
        if not self.sources or self.installation.session is None:
            return
        starts, attached = not self.state, any(x.grad_fn is not None for x in self.state)
        self.state = []
        self.watch.after(neuron, output)
        if starts:
            self.trace.clear()
        signals = self.trace.step(spikes_of(output), self.precision)
        for use in self.sources:
            self.installation.courses[use].receive(self.name, signals, starts, attached)


class StepwiseEnd(Unpicklable):
    """Forward hook of the model: no step awaits its neurons any longer."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    @eager
    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        """Drops what a forward pass that failed, and so has no output, left unanswered."""
        unanswered = [course for course in self.installation.courses.values() if course.pending]
        for course in unanswered:
            course.pending.clear()
        if unanswered and output is not None:
            raise ValueError(
                f"{unanswered[0].name} was called without its neuron after it, other than in attach's example forward "
                "pass; attach with an example that takes the same path"
            )


class StateGuard(Unpicklable):
    """Forward hooks of a neuron that takes all steps in one call, and keeps a state: each call must start a sequence.

    Raises:
        RuntimeError: a call goes on with the state of the last one, while the traces start anew.
    """

    def __init__(self, installation: Installation, name: str, neuron: nn.Module) -> None:
        self.installation = installation
        self.name = name
        self.watch = StateWatch(neuron)

    def before(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Looks at the state that the call goes on with."""
        if torch.compiler.is_compiling() or self.installation.session is None:
            return
        if self.watch.before(neuron, arguments, keywords) and torch.is_grad_enabled():
            raise RuntimeError(
                f"neuron {self.name} goes on with the state of its last call, but its traces start with each call: "
                "reset it where a sequence begins, and give it the whole sequence in one call"
            )

    def after(self, neuron: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        """Notes the state that the call left behind."""
        if not torch.compiler.is_compiling() and self.installation.session is not None:
            self.watch.after(neuron, output)
