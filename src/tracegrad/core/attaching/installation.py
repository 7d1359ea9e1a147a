"""The gates in a model: puts them there, takes them out, and holds what they share."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tracegrad.core.attaching.forward import ForwardPass
from tracegrad.core.attaching.hooks import Begin, End, Join, StepwiseEnd, SynapseGate
from tracegrad.core.attaching.neuron_hooks import NeuronGate, RequireReset, StepwiseNeuron
from tracegrad.core.calls import Synapse
from tracegrad.core.equations.controls import ControlMemory
from tracegrad.core.equations.masking import StepMask
from tracegrad.core.equations.rule import Rule
from tracegrad.core.neurons import keeps_state, only_spikes, reset_of
from tracegrad.core.pairing.graph import Use
from tracegrad.core.pairing.pairs import Pairing
from tracegrad.core.processes import ProcessSum
from tracegrad.core.step_calls import StepUse
from tracegrad.core.synapses import install_gates, remove_gate
from tracegrad.core.torch_internals import forward_hooks, forward_pre_hooks
from tracegrad.core.unpicklable import Unpicklable
from tracegrad.events.choice import Mode


class Installation(Unpicklable):
    """Puts the gates into a model and takes them out.

    Args:
        model: to scale the gradients of.
        pairing: its pairs.
        rule: how gradients are scaled.
        control_seed: of what a control draws at random.
        events: when sums run over spikes.
        sum_processes: adds up relations over processes; None where each keeps its own.
        record: keep the relations of the last backward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        pairing: Pairing,
        rule: Rule,
        control_seed: int,
        events: Mode,
        sum_processes: ProcessSum | None,
        record: bool,
    ) -> None:
        self.model = model
        self.pairing = pairing
        self.rule = rule
        self.sum_processes = sum_processes
        self.relations: dict[str, Tensor] = {}
        self.forward: ForwardPass | None = None
        self.mask: StepMask | None = None
        self.step_synapses = {use[0] for uses in pairing.steps.values() for use in uses}
        self.step_uses: dict[Use, StepUse] = {}
        self.may_lack_hooks = False
        self._has_warned = False
        self._gated: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []
        scales = rule.control.scales
        recorders = {use[0]: _Recorder(self, use[0]) if record else None for use, _ in pairing.paired()}
        self.synapses = {
            name: Synapse(
                name,
                rule if scales is None else replace(rule, factor=scales.get(name)),
                ControlMemory(name, control_seed),
                events,
                sum_processes,
                recorder,
                self.warn_unreached,
            )
            for name, recorder in recorders.items()
        }

    def install(self) -> None:
        """Puts the gates in place."""
        for use in dict.fromkeys(use for uses in self.pairing.steps.values() for use in uses):
            neurons = {neuron for neuron, uses in self.pairing.steps.items() if use in uses}
            reset = reset_of(self.model.get_submodule(min(neurons)))
            self.step_uses[use] = StepUse(self.synapses[use[0]], neurons, reset)
        owners = (self.pairing.owners[name] for name in self.synapses)
        self._gated = install_gates(self.model, owners, self.pairing.watched, lambda: SynapseGate(self))
        for name in self.pairing.neurons:
            self._hook_neuron(name, self.model.get_submodule(name))
        begin = self.model.register_forward_pre_hook(Begin(self), with_kwargs=True, prepend=True)
        self._handles += [begin, self.model.register_forward_hook(End(self), always_call=True)]
        if self.sum_processes is not None:
            self._handles.append(self.model.register_forward_hook(Join(self.sum_processes)))
        if self.step_uses:
            self._handles.append(self.model.register_forward_hook(StepwiseEnd(self), always_call=True))

    def _hook_neuron(self, name: str, neuron: nn.Module) -> None:
        if name in self.pairing.stepping:
            stepwise = StepwiseNeuron(self, name, neuron)
            self._handles.append(neuron.register_forward_pre_hook(stepwise.before, with_kwargs=True))
            self._handles.append(neuron.register_forward_hook(stepwise.after, with_kwargs=True))
            return
        gate = NeuronGate(self, name)
        has_routes = any(neuron == name for _, neuron in self.pairing.routes)
        hook = gate if has_routes else only_spikes(gate)
        self._handles.append(neuron.register_forward_hook(hook, with_kwargs=True))
        if keeps_state(neuron):
            self._handles.append(neuron.register_forward_pre_hook(RequireReset(name, neuron), with_kwargs=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Installation":
        duplicate = super().__deepcopy__(memo)
        assert isinstance(duplicate, Installation)  # noqa: S101 - of its own class
        duplicate.may_lack_hooks = True
        return duplicate

    def restore_hooks(self) -> None:
        """Hooks the neurons of a deep copy once more that did not copy their hooks, as sinabs' do not."""
        self.may_lack_hooks = False
        for name in self.pairing.neurons:
            neuron = self.model.get_submodule(name)
            hooks = [getattr(hook, "__self__", hook) for hook in forward_hooks(neuron)]
            if not any(isinstance(hook, NeuronGate | StepwiseNeuron) for hook in hooks):
                self._hook_neuron(name, neuron)

    def remove(self) -> None:
        """Takes the gates out; the model is as it was before. Calling it again does nothing."""
        for module in self._gated:
            remove_gate(module)
        for handle in self._handles:
            handle.remove()
        self.step_uses.clear()
        self._gated.clear()
        self._handles.clear()

    def set_alpha(self, synapse: str, alpha: float) -> None:
        """Another alpha for a synapse, from the next backward pass on."""
        self.synapses[synapse].rule = replace(self.synapses[synapse].rule, alpha=alpha)

    def warn_unreached(self, synapse: str) -> None:
        """Warns, once, that a neuron's spikes do not reach the loss."""
        if torch.compiler.is_compiling() or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"the gradient of {synapse} is not scaled: the spikes of its neuron do not reach the loss "
            "(a loss of membranes alone, or spikes that were detached)",
            stacklevel=2,
        )


class _Recorder(Unpicklable):
    """Keeps the normalised relation of the backward pass that just ran."""

    def __init__(self, installation: Installation, synapse: str) -> None:
        self.installation = installation
        self.synapse = synapse

    def __call__(self, relation: Tensor) -> None:
        self.installation.relations[self.synapse] = relation


def installation_of(model: nn.Module) -> Installation | None:
    """The installation whose top is `model`; of a deep copy, the copy's own."""
    return next((hook.installation for hook in forward_pre_hooks(model) if isinstance(hook, Begin)), None)
