"""The gates in a model: what stands at its synapses, at its neurons and at its top while scaling is attached."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tracegrad.core.backward import in_backward_pass
from tracegrad.core.gate import Rule, close_gate, open_gate
from tracegrad.core.graph import Use
from tracegrad.core.neurons import keeps_state, only_spikes, reset_of, spikes_of, with_spikes
from tracegrad.core.pairing import Pairing
from tracegrad.core.session import Session
from tracegrad.core.signals import SignalReader
from tracegrad.core.step_neurons import Restarted, StepwiseEnd, StepwiseNeuron
from tracegrad.core.steps import Course, RunningTrace, Scaled
from tracegrad.core.synapse import Geometry, geometry_of, install_gate, remove_gate
from tracegrad.core.trace import at_least_float32
from tracegrad.core.unpicklable import Unpicklable, eager


class Installation(Unpicklable):
    """Puts the gates into a model and takes them out; what the gates share.

    Args:
        model: to scale the gradients of.
        pairing: its pairs.
        rule: how gradients are scaled.
        spiking_input: the model's input [T, B, ...] is spikes.
        record: keep the relations of the last backward pass.
    """

    def __init__(self, model: nn.Module, pairing: Pairing, rule: Rule, spiking_input: bool, record: bool) -> None:
        self.model = model
        self.pairing = pairing
        self.rule = rule
        self.spiking_input = spiking_input
        self.record = record
        self.relations: dict[str, Tensor] = {}
        self.session: Session | None = None
        self.courses: dict[Use, Course] = {}
        self._gated: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []

    def install(self) -> None:
        """Puts the gates in place."""
        for name in dict.fromkeys(name for uses in self.pairing.receivers.values() for name, _ in uses):
            synapse = self.model.get_submodule(name)
            gate = StepwiseSynapse if name in self.pairing.period else SynapseGate
            install_gate(synapse, gate(self, name, geometry_of(synapse)))
            self._gated.append(synapse)
        for name in self.pairing.neurons:
            neuron = self.model.get_submodule(name)
            if name in self.pairing.stepping:
                gate = StepwiseNeuron(self, name, neuron)
                self._handles.append(neuron.register_forward_pre_hook(gate.before, with_kwargs=True))
                self._handles.append(neuron.register_forward_hook(gate.after))
            else:
                self._handles.append(neuron.register_forward_hook(only_spikes(NeuronGate(self, name))))
                if keeps_state(neuron):
                    check = Restarted(name, neuron)
                    self._handles.append(neuron.register_forward_pre_hook(check, with_kwargs=True))
        begin = self.model.register_forward_pre_hook(Begin(self), with_kwargs=True, prepend=True)
        self._handles += [begin, self.model.register_forward_hook(End(self), always_call=True)]
        if self.courses:
            self._handles.append(self.model.register_forward_hook(StepwiseEnd(self), always_call=True))

    def remove(self) -> None:
        """Takes the gates out; the model is as it was before. Calling it again does nothing."""
        for synapse in self._gated:
            remove_gate(synapse)
        for handle in self._handles:
            handle.remove()
        self.courses.clear()
        self._gated.clear()
        self._handles.clear()


def installation_of(model: nn.Module) -> Installation | None:
    """The installation whose top is `model`; of a deep copy, the copy's own."""
    hooks = model._forward_pre_hooks.values()  # pyright: ignore[reportPrivateUsage] - PyTorch lists hooks nowhere else
    return next((hook.installation for hook in hooks if isinstance(hook, Begin)), None)


class Begin(Unpicklable):
    """Forward pre-hook of the model: a session begins."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __call__(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Begins the session."""
        time_steps = None
        if self.installation.spiking_input:
            inputs = (*arguments, *keywords.values())
            time_steps = next(value.shape[0] for value in inputs if isinstance(value, Tensor))
        self.installation.session = Session(self.installation.pairing, time_steps)


class End(Unpicklable):
    """Forward hook of the model: the session ends, also where the forward pass failed."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __call__(self, _: nn.Module, __: Any, ___: Any) -> None:
        """Ends the session."""
        self.installation.session = None


class SynapseGate(Unpicklable):
    """Computes a synapse's current and leaves a token for its neurons."""

    def __init__(self, installation: Installation, name: str, geometry: Geometry) -> None:
        self.installation = installation
        self.name = name
        self.geometry = geometry
        self.ran_without_gradients = False

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current."""
        session = self.installation.session
        use = session.next_use(self.name) if session else None
        if not torch.is_grad_enabled():
            self.ran_without_gradients = session is not None and session.with_gradients
            return self.geometry.current(x, weight, bias)
        if session is None:
            self._check_recomputation()
        reader = session.reader if session else SignalReader()
        current, token = open_gate(
            x, weight, bias, self.geometry, self.installation.rule, self._time_steps(x), self._recorder(), reader
        )
        if session and use:
            session.tokens[use] = token
        return current

    def _check_recomputation(self) -> None:
        """A checkpoint recomputes outside of the forward pass: only what is saved counts then, no token is needed."""
        if not in_backward_pass():
            raise RuntimeError(
                f"{self.name} was called outside of its model's forward pass, where its neurons can't be told: "
                "call the model itself (not model.forward or a part of it), or detach() first"
            )
        if self.ran_without_gradients:
            raise RuntimeError(
                f"{self.name} is recomputed by a reentrant checkpoint, which hides it from gradient scaling: "
                "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )

    def _time_steps(self, x: Tensor) -> int:
        session = self.installation.session
        if session is None or session.time_steps is None:
            return x.shape[0]
        if x.shape[0] % session.time_steps:
            raise ValueError(
                f"the input of {self.name} has shape {list(x.shape)}; its first dimension must be T = "
                f"{session.time_steps}, or T * B folded time-major"
            )
        return session.time_steps

    def _recorder(self) -> Any:
        if not self.installation.record:
            return None
        if torch.compiler.is_compiling():
            raise RuntimeError("record=True needs an eager backward pass: attach with record=False to compile")
        return self.keep_relation

    def keep_relation(self, relation: Tensor) -> None:
        """Keeps the normalised relation of the backward pass that just ran."""
        self.installation.relations[self.name] = relation


class NeuronGate(Unpicklable):
    """Forward hook of a neuron: ties its spikes to the tokens of the currents that drove it."""

    def __init__(self, installation: Installation, name: str) -> None:
        pairing = installation.pairing
        self.installation = installation
        self.name = name
        self.receives = any(neuron == name for neuron, _ in pairing.receivers)
        self.steps = pairing.steps_of(name)
        self.clone = name in pairing.written_in_place

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        """What the neuron returned, with the same spikes."""
        spikes = spikes_of(output)
        session = self.installation.session
        tokens: list[Tensor] = []
        if session is not None:
            session.fire(self.name, spikes)
            self._answer_steps(spikes)
            sources = session.pairing.receivers.get(session.next_use(self.name), [])
            tokens = [session.tokens[use] for use in sources if use in session.tokens]
        if not (self.receives and torch.is_grad_enabled()):
            return output
        for token in tokens:
            if token.numel() != spikes.numel():
                raise ValueError(
                    f"neuron {self.name} fired spikes of shape {list(spikes.shape)} for a current of shape "
                    f"{list(token.shape)}; they must have as many elements, in the same order"
                )
        return with_spikes(output, close_gate(spikes, tokens, self.clone))

    def _answer_steps(self, spikes: Tensor) -> None:
        """Tells the steps of the spikes to the synapses that are called step by step before this neuron."""
        if self.steps:
            trace = RunningTrace()
            for step, signals in enumerate(trace.step(spike, at_least_float32(spike)) for spike in spikes):
                for use in self.steps:
                    self.installation.courses[use].receive(self.name, signals, starts=step == 0, attached=False)


class StepwiseSynapse(SynapseGate):
    """Computes a synapse's current of one step."""

    def __init__(self, installation: Installation, name: str, geometry: Geometry) -> None:
        super().__init__(installation, name, geometry)
        receivers = installation.pairing.receivers
        for place in range(installation.pairing.period[name]):
            neurons = {neuron for (neuron, _), uses in receivers.items() if (name, place) in uses}
            if neurons:
                scaled = Scaled(geometry, installation.rule, self.keep_relation if installation.record else None)
                reset = reset_of(installation.model.get_submodule(min(neurons)))
                installation.courses[name, place] = Course(name, neurons, scaled, reset)

    @eager
    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current."""
        session = self.installation.session
        if session is None or in_backward_pass():
            if torch.is_grad_enabled():
                self._check_recomputation()
            return self.geometry.current(x, weight, bias)
        self.ran_without_gradients = session.with_gradients and not torch.is_grad_enabled()
        _, call = session.next_use(self.name)
        course = self.installation.courses.get((self.name, call % self.installation.pairing.period[self.name]))
        return course.conduct(x, weight, bias) if course else self.geometry.current(x, weight, bias)
