"""What stands at the neurons of a model while scaling is attached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.forward import ForwardPass
from tracegrad.core.attaching.routes import route_back
from tracegrad.core.gate import Firing, Route, close_gate
from tracegrad.core.neurons import current_of, reset_of, spikes_of, time_of, with_spikes
from tracegrad.core.pairing.graph import Use
from tracegrad.core.past import Handed, Past, Run
from tracegrad.core.state import StateWatch
from tracegrad.core.time_layout import SINGLE_STEP, TimeLayout
from tracegrad.core.torch_internals import in_backward_pass
from tracegrad.core.unpicklable import Unpicklable, eager

if TYPE_CHECKING:
    from tracegrad.core.attaching.installation import Installation


class NeuronGate(Unpicklable):
    """Forward hook of a neuron that takes all steps at once: ties its spikes to the currents that drove it."""

    def __init__(self, installation: Installation, name: str) -> None:
        pairing = installation.pairing
        self.installation = installation
        self.name = name
        self.receives = any(neuron == name for neuron, _ in pairing.receivers) or name in pairing.steps
        self.clone = name in pairing.written_in_place

    def __call__(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        """What the neuron returned, with the same spikes."""
        spikes, forward = spikes_of(output), self.installation.forward
        layout, time_steps = time_of(neuron, spikes)
        feedback: list[Tensor] = []
        routes: list[Route | None] = []
        run = None
        if forward is not None:
            forward.time_steps[self.name] = time_steps
            if self.name in forward.pairing.steps and not in_backward_pass():
                run = self._hand_over(spikes, layout, time_steps)
            for use in forward.pairing.receivers.get(forward.next_use(self.name), ()):
                if use in forward.feedback:
                    feedback.append(forward.feedback[use])
                    routes.append(self._route(use, neuron, arguments, keywords, forward))
                    if routes[-1] is None:
                        self._check(spikes, time_steps, feedback[-1], use)
        if not (self.receives and torch.is_grad_enabled()):
            return output
        close = close_gate if run is None else run.close
        return with_spikes(output, close(spikes, feedback, Firing(layout, time_steps, tuple(routes), self.clone)))

    def _check(self, spikes: Tensor, time_steps: int, feedback: Tensor, use: Use) -> None:
        if feedback.shape[0] != time_steps:
            raise ValueError(
                f"neuron {self.name} fired over T = {time_steps} steps, but T = {feedback.shape[0]} earlier, in the "
                f"current of {use[0]}; T must not change between a synapse and its neuron"
            )
        if feedback.numel() != spikes.numel():
            raise ValueError(
                f"neuron {self.name} fired spikes of shape {list(spikes.shape)} for a current of {use[0]} of shape "
                f"{list(feedback.shape)}; they must have as many elements, in the same order"
            )

    def _route(
        self, use: Use, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], forward: ForwardPass
    ) -> Route | None:
        path = forward.pairing.routes.get((use, self.name))
        if path is None:
            return None
        back = route_back(current_of(neuron, arguments, keywords), path)
        layout, time_steps = forward.pairing.layouts[use], forward.feedback[use].shape[0]

        def post(spikes: Tensor) -> Tensor:
            return layout.split(back(spikes), time_steps)

        return post

    @eager
    def _hand_over(self, spikes: Tensor, layout: TimeLayout, time_steps: int) -> Run:
        """Hands the spikes, step by step, to the synapses that are called step by step before this neuron."""
        run, past, mask = Run(), Past(), self.installation.mask
        for spike in layout.split(spikes.detach(), time_steps).unsqueeze(1):
            counted = spike if mask is None else mask.spikes(spike, run.steps)
            handed = Handed(self.name, spike[0], past.advance(counted)[0], run, run.steps, attached=False)
            run.steps += 1
            for use in self.installation.pairing.steps[self.name]:
                self.installation.step_uses[use].receive(handed)
        return run


class StepwiseNeuron(Unpicklable):
    """Forward hooks of a neuron that is called step by step: its traces, and what they mean to the synapses before it.

    Its `before` sees the state that a call goes on with, its `after` the spikes. The values of states tell where a
    sequence starts, so it runs outside of compiled graphs.
    """

    def __init__(self, installation: Installation, name: str, neuron: nn.Module) -> None:
        self.installation = installation
        self.name = name
        self.uses = installation.pairing.steps.get(name, [])
        self.clone = name in installation.pairing.written_in_place
        self.watch = StateWatch(neuron)
        self.watch.note_held(neuron)
        self.unknown = True  # what a state that the neuron holds already has seen
        self.pasts: dict[Use | None, Past] = {}  # None: of the spikes as they are, without a pool
        self.run = Run()
        self.state: list[Tensor] = []

    @eager
    def before(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Looks at the state that the call goes on with."""
        if self._counts():
            self.state = self.watch.before(neuron, arguments, keywords)
            self.unknown = self.unknown and bool(self.state)
            if self.unknown and torch.is_grad_enabled():
                raise RuntimeError(
                    f"neuron {self.name} goes on with a state from before scaling was attached, whose spikes are not "
                    f"known: call {reset_of(neuron)} where a sequence begins"
                )

    @eager
    def after(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        """Hands the spikes to the synapses; returns what the neuron returned, with the same spikes."""
        if self._counts():
            if not self.state:
                self.run = Run()
                self.pasts.clear()
            self.watch.after(neuron, output)
            self._hand_over(neuron, arguments, keywords, spikes_of(output))
            self.state = []
        if not (self.uses and torch.is_grad_enabled()):
            return output
        return with_spikes(output, self.run.close(spikes_of(output), [], Firing(SINGLE_STEP, 1, clone=self.clone)))

    def _hand_over(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: Any, spikes: Tensor) -> None:
        attached = any(x.grad_fn is not None for x in self.state)
        routes = self.installation.pairing.routes
        direct = self._handed(None, spikes.detach(), attached)
        for use in self.uses:
            handed, path = direct, routes.get((use, self.name))
            if path is not None:
                back = route_back(current_of(neuron, arguments, keywords), path)
                handed = self._handed(use, back(spikes.detach()), attached)
            self.installation.step_uses[use].receive(handed)
        self.run.steps += 1

    def _handed(self, use: Use | None, spikes: Tensor, attached: bool) -> Handed:
        mask = self.installation.mask
        if mask is not None:
            mask.check(self.run.steps + 1, len(spikes), at_once=False)
        counted = spikes[None] if mask is None else mask.spikes(spikes[None], self.run.steps)
        (trace,) = self.pasts.setdefault(use, Past()).advance(counted)
        return Handed(self.name, spikes, trace, self.run, self.run.steps, attached)

    def _counts(self) -> bool:
        """Whether a call is a step of the network: not what a checkpoint computes anew."""
        return bool(self.uses) and self.installation.forward is not None and not in_backward_pass()


class RequireReset(Unpicklable):
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
