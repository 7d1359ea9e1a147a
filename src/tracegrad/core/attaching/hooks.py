"""What stands at the top and at the synapses of a model while scaling is attached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tracegrad.core.attaching.forward import ForwardPass
from tracegrad.core.calls import Synapse, WholeCall
from tracegrad.core.equations.functional import SynapseCall
from tracegrad.core.equations.signals import SignalReader
from tracegrad.core.gate import open_gate, relation_precision
from tracegrad.core.processes import ProcessSum
from tracegrad.core.step_calls import StepCall
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
        if installation.may_lack_hooks:
            installation.restore_hooks()
        installation.forward = ForwardPass(installation.pairing, (arguments, keywords), installation.mask)


class End(Unpicklable):
    """Forward hook of the model: the forward pass ends, also where it failed."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def __call__(self, _: nn.Module, __: Any, ___: Any) -> None:
        """Ends the forward pass."""
        self.installation.forward = None


class Join(Unpicklable):
    """Forward hook of the model: each backward pass through its outputs is compared with those of other processes.

    A process that adds up no relation in a backward pass would otherwise leave the others waiting for it.
    """

    def __init__(self, sum_processes: ProcessSum) -> None:
        self.sum_processes = sum_processes

    def __call__(self, _: nn.Module, __: Any, output: Any) -> None:
        """Listens to the gradients of the outputs."""
        if torch.compiler.is_compiling():
            return
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and x.requires_grad:
                x.register_hook(self._join)

    def _join(self, gradient: Tensor) -> None:
        self.sum_processes.join(gradient.device)


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
        if torch.compiler.is_compiling():
            _refuse_to_compile(synapse)
        layout, time_steps = forward.time_of(use, call.x)
        if forward.mask is not None:
            _check_mask(synapse)
            forward.mask.check(time_steps, layout.split(call.x, time_steps).shape[1], at_once=True)
        precision = relation_precision(call.x, synapse.rule)
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
        use = self.installation.pairing.place(*forward.next_use(name))
        step_use = self.installation.step_uses.get(use)
        if step_use is None:
            return _current(call)
        layout, time_steps = forward.time_of(use, call.x)
        x = layout.split(call.x.detach(), time_steps)
        if forward.mask is not None:
            _check_mask(step_use.synapse)
            forward.mask.check(time_steps, x.shape[1], at_once=False)
        trains = torch.is_grad_enabled() and call.weight.requires_grad
        step = StepCall(
            step_use.synapse,
            call.geometry,
            layout,
            time_steps,
            relation_precision(call.x, step_use.synapse.rule),
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
        again = WholeCall(
            synapse, call.geometry, SINGLE_STEP, 1, relation_precision(call.x, synapse.rule), SignalReader()
        )
        return open_gate(call.x, call.weight, call.bias, again)[0]


def _current(call: SynapseCall) -> Tensor:
    return call.geometry.current(call.x, call.weight, call.bias)


def _refuse_to_compile(synapse: Synapse) -> None:
    """Refuses what changes something beside the gradients."""
    control = synapse.rule.control
    if synapse.record is not None:
        raise RuntimeError("record=True needs an eager backward pass: attach with record=False to compile")
    if control.keeps:
        raise RuntimeError(f"control={control.name!r} needs an eager backward pass: leave torch.compile out")


def _check_mask(synapse: Synapse) -> None:
    control = synapse.rule.control
    if control.post is not None:
        raise ValueError(
            f"control={control.name!r} pairs each example with another one, so that no mask says which steps count in "
            "both: leave the mask out"
        )
