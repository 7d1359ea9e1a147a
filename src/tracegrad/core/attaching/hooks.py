"""What stands in a model while scaling is attached: at its top, at its synapses, at its neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.forward import ForwardPass
from tracegrad.core.attaching.routes import route_back
from tracegrad.core.equations.functional import SynapseCall
from tracegrad.core.equations.signals import SignalReader
from tracegrad.core.gate import Firing, WholeCall, close_gate, open_gate, relation_precision
from tracegrad.core.neurons import convention_of, current_of, reset_of, spikes_of, with_spikes
from tracegrad.core.past import Handed, Past, Run, StepCall
from tracegrad.core.state import StateWatch
from tracegrad.core.time_layout import SINGLE_STEP
from tracegrad.core.torch_internals import in_backward_pass, is_replica
from tracegrad.core.unpicklable import Unpicklable, eager

if TYPE_CHECKING:
    from tracegrad.core.attaching.installation import Installation


class Begin(Unpicklable):
    """Forward pre-hook of the model: a forward pass begins."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __call__(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Begins the forward pass."""
        if is_replica(model):
            raise RuntimeError(
                "nn.DataParallel runs copies of the model in threads, which share one gradient scaling: use "
                "torch.nn.parallel.DistributedDataParallel, or detach() first"
            )
        installation = self.installation
        installation.forward = ForwardPass(installation.pairing, (arguments, keywords), installation.mask)


class End(Unpicklable):
    """Forward hook of the model: the forward pass ends, also where it failed."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __call__(self, _: nn.Module, __: Any, ___: Any) -> None:
        """Ends the forward pass."""
        self.installation.forward = None


class StepwiseEnd(Unpicklable):
    """Forward hook of the model: no call of a synapse awaits its neurons any longer."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    @eager
    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        """Drops the calls that a forward pass that failed, and so has no output, left unanswered."""
        unanswered = [use for use in self.installation.step_uses.values() if use.pending]
        for use in unanswered:
            use.pending.clear()
        if unanswered and output is not None:
            raise ValueError(
                f"{unanswered[0].synapse.name} was called without its neuron after it, other than in attach's example "
                "forward pass; attach with an example that takes the same path"
            )


class SynapseGate(Unpicklable):
    """Computes the currents of the synapses in one module, and leaves feedback for their neurons."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.ran_without_gradients = False

    def __call__(self, name: str, call: SynapseCall) -> Tensor:
        """The synaptic current."""
        if name not in self.installation.synapses:
            return _current(call)
        if name in self.installation.step_synapses:
            return self._step(name, call)
        forward = self.installation.forward
        use = forward.next_use(name) if forward else None
        if not torch.is_grad_enabled():
            self.ran_without_gradients = forward is not None and forward.with_gradients
            return _current(call)
        if forward is None or use is None:
            return self._recompute(name, call)
        if use not in forward.pairing.layouts:
            return _current(call)
        synapse = self.installation.synapses[name]
        if synapse.record is not None and torch.compiler.is_compiling():
            raise RuntimeError("record=True needs an eager backward pass: attach with record=False to compile")
        layout, time_steps = forward.time_of(use, call.x)
        precision = relation_precision(call.x)
        whole = WholeCall(synapse, call.geometry, layout, time_steps, precision, forward.reader, forward.mask)
        current, feedback = open_gate(call.x, call.weight, call.bias, whole)
        forward.feedback[use] = feedback
        return current

    @eager
    def _step(self, name: str, call: SynapseCall) -> Tensor:
        """The current of a call whose spikes are handed over step by step."""
        forward = self.installation.forward
        if forward is None or in_backward_pass():
            return self._recompute(name, call) if torch.is_grad_enabled() else _current(call)
        self.ran_without_gradients = forward.with_gradients and not torch.is_grad_enabled()
        _, number = forward.next_use(name)
        use = name, number % self.installation.pairing.period.get(name, number + 1)
        step_use = self.installation.step_uses.get(use)
        if step_use is None:
            return _current(call)
        layout, time_steps = forward.time_of(use, call.x)
        x = layout.split(call.x.detach(), time_steps)
        trains = torch.is_grad_enabled() and call.weight.requires_grad
        step = StepCall(
            step_use.synapse,
            call.geometry,
            layout,
            time_steps,
            relation_precision(call.x),
            forward.mask,
            x[:, : step_use.synapse.rule.sample_size(x.shape[1])],
            torch.Size(),
            call.weight.detach(),
            trains,
        )
        current = open_gate(call.x, call.weight, call.bias, step)[0] if torch.is_grad_enabled() else _current(call)
        step.shape = layout.split(current, time_steps).shape[1:]
        step_use.pending.append(step)
        return current

    def _recompute(self, name: str, call: SynapseCall) -> Tensor:
        """A checkpoint recomputes outside of the forward pass: only what is saved counts then, not the feedback."""
        if not in_backward_pass():
            raise RuntimeError(
                f"{name} was called outside of its model's forward pass, where its neurons can't be told: "
                "call the model itself (not model.forward or a part of it), or detach() first"
            )
        if self.ran_without_gradients:
            raise RuntimeError(
                f"{name} is recomputed by a reentrant checkpoint, which hides it from gradient scaling: "
                "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )
        synapse = self.installation.synapses[name]
        again = WholeCall(synapse, call.geometry, SINGLE_STEP, 1, relation_precision(call.x), SignalReader())
        return open_gate(call.x, call.weight, call.bias, again)[0]


def _current(call: SynapseCall) -> Tensor:
    return call.geometry.current(call.x, call.weight, call.bias)


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
        routes: list[Any] = []
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
        firing = Firing(layout, time_steps, tuple(routes), None if run is None else run.reach, self.clone)
        return with_spikes(output, close_gate(spikes, feedback, firing))

    def _check(self, spikes: Tensor, time_steps: int, feedback: Tensor, use: Any) -> None:
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
        self, use: Any, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], forward: ForwardPass
    ) -> Any:
        path = forward.pairing.routes.get((use, self.name))
        if path is None:
            return None
        back = route_back(current_of(neuron, arguments, keywords), path)
        layout, time_steps = forward.pairing.layouts[use], forward.feedback[use].shape[0]

        def post(spikes: Tensor) -> Tensor:
            return layout.split(back(spikes), time_steps)

        return post

    @eager
    def _hand_over(self, spikes: Tensor, layout: Any, time_steps: int) -> Run:
        """Hands the spikes, step by step, to the synapses that are called step by step before this neuron."""
        run, past, mask = Run(), Past(), self.installation.mask
        for spike in layout.split(spikes.detach(), time_steps).unsqueeze(1):
            counted = spike if mask is None else mask.spikes(spike, run.steps)
            handed = Handed(self.name, spike[0], past.advance(counted), run, run.steps, attached=False)
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
        self.pasts: dict[Any, Past] = {}
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
        firing = Firing(SINGLE_STEP, 1, reach=self.run.reach, clone=self.clone)
        return with_spikes(output, close_gate(spikes_of(output), [], firing))

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

    def _handed(self, use: Any, spikes: Tensor, attached: bool) -> Handed:
        mask = self.installation.mask
        counted = spikes[None] if mask is None else mask.spikes(spikes[None], self.run.steps)
        past = self.pasts.setdefault(use, Past()).advance(counted)
        return Handed(self.name, spikes, past, self.run, self.run.steps, attached)

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


def time_of(neuron: nn.Module, spikes: Tensor) -> Any:
    """Where time is in a neuron's spikes, and T."""
    convention = convention_of(neuron)
    assert convention is not None  # noqa: S101 - it is registered
    return convention.time_of(neuron, spikes)
