"""What watches the neurons that keep a state: their traces step by step, and where their sequences start.

Its values tell that, so it runs outside of compiled graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracegrad.core.backward import in_backward_pass
from tracegrad.core.neurons import reset_of, spikes_of
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
        self.watch.note_held(neuron)
        self.unknown = True  # what a state that the neuron holds already has seen
        self.trace = RunningTrace()
        self.state: list[Tensor] = []
        self.precision = torch.float32

    @eager
    def before(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Looks at the state that the call goes on with."""
        if self._counts():
            self.state = self.watch.before(neuron, arguments, keywords)
            self.precision = at_least_float32(arguments[0] if arguments else next(iter(keywords.values())))
            self.unknown = self.unknown and bool(self.state)
            if self.unknown and torch.is_grad_enabled():
                raise RuntimeError(
                    f"neuron {self.name} goes on with a state from before scaling was attached, whose spikes are not "
                    f"known: call {reset_of(neuron)} where a sequence begins"
                )

    @eager
    def after(self, neuron: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        """Tells the spikes to the synapses."""
        if not self._counts():
            return
        starts, attached = not self.state, any(x.grad_fn is not None for x in self.state)
        self.state = []
        self.watch.after(neuron, output)
        if starts:
            self.trace.clear()
        signals = self.trace.step(spikes_of(output), self.precision)
        for use in self.sources:
            self.installation.courses[use].receive(self.name, signals, starts, attached)

    def _counts(self) -> bool:
        """Whether a call is a step of the network: not what a checkpoint computes anew."""
        return bool(self.sources) and self.installation.session is not None and not in_backward_pass()


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


class Restarted(Unpicklable):
    """Forward pre-hook of a neuron that takes all steps at once and keeps a state: each call must start a sequence."""

    def __init__(self, name: str, neuron: nn.Module) -> None:
        self.name = name
        self.reset = reset_of(neuron)
        self.watch = StateWatch(neuron)

    def __call__(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Refuses the state of another call, as the spike traces of a call start at zero."""
        if torch.is_grad_enabled() and self.watch.carried_over(neuron, arguments, keywords):
            raise RuntimeError(
                f"neuron {self.name} goes on with the state of an earlier call, but its spike traces would start anew: "
                f"call {self.reset} before each forward pass (around a checkpoint: use the library's own checkpoints)"
            )
