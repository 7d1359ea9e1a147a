"""One example forward pass with marks in its autograd graph where currents and spikes begin and arrive."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from tracegrad.core.attributes import kept_attributes
from tracegrad.core.graph import Node, Use
from tracegrad.core.neurons import is_neuron, spikes_of, steps_one_by_one, with_spikes
from tracegrad.core.state import StateWatch
from tracegrad.core.synapse import current_of, install_gate, is_synapse, overrides_current, remove_gate


class _Mark(torch.autograd.Function):
    """The identity; its node in the graph says what passes there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: Literal["current", "spikes", "inside"], use: Use) -> Tensor:
        ctx.kind, ctx.use = kind, use
        return x.clone()  # not a view: the model may write it in place

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *grad_outputs, None, None


def _mark(x: Tensor, kind: Literal["current", "spikes", "inside"], use: Use) -> Tensor:
    return _Mark.apply(x, kind, use)  # pyright: ignore[reportReturnType]


class Trial:
    """The example forward pass and what was marked in it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.synapses = {
            name: module
            for name, module in model.named_modules()
            if is_synapse(module) and not overrides_current(module)
        }
        self.spiking = {name: module for name, module in model.named_modules() if is_neuron(module)}
        self.calls: dict[str, int] = {}
        self.inputs: dict[Use, Node] = {}  # the node of the input of each use of a synapse
        self.arrivals: dict[Use, tuple[Node, torch.Size]] = {}  # of the current of each use of a neuron
        self.fired: dict[str, None] = {}
        self.starts: dict[str, int] = {}  # how many sequences each neuron starts that is called step by step
        self.stepping = {name for name, module in self.spiking.items() if steps_one_by_one(module)}
        self._spikes: list[tuple[str, Tensor, int]] = []

    def run(self, example: tuple[Any, ...]) -> set[Node]:
        """Runs the example without a trace in the model; returns the nodes at which its tensors enter."""
        entered: list[Tensor] = []

        def enter(leaf: Any) -> Any:
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                return leaf
            entered.append(leaf.detach().clone().requires_grad_())
            return entered[-1]

        arguments = tree_map(enter, example)
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        restore_attributes = kept_attributes(self.model)
        handles: list[RemovableHandle] = []
        for name, neuron in self.spiking.items():
            watch = StateWatch(neuron) if name in self.stepping else None
            handles.append(neuron.register_forward_pre_hook(self._arrive(name, watch), with_kwargs=True))
            handles.append(neuron.register_forward_hook(self._fire(name, watch)))
        devices = {tensor.device.index for tensor in entered if tensor.device.type == "cuda"}
        try:
            for name, synapse in self.synapses.items():
                install_gate(synapse, self._conduct(name, synapse))
            with torch.random.fork_rng(devices), torch.enable_grad():
                # The model computes with copies of its buffers, so that running statistics stay as they are.
                torch.func.functional_call(self.model, buffers, arguments)
        finally:
            for synapse in self.synapses.values():
                remove_gate(synapse)
            for handle in handles:
                handle.remove()
            restore_attributes()
        return {torch.autograd.graph.get_gradient_edge(tensor).node for tensor in entered}

    def written_in_place(self) -> set[str]:
        """The names of the neurons whose spikes the model has written over."""
        return {name for name, spikes, version in self._spikes if spikes._version != version}

    def _next_use(self, name: str) -> Use:
        self.calls[name] = self.calls.get(name, 0) + 1
        return name, self.calls[name] - 1

    def _conduct(self, name: str, synapse: nn.Module) -> Callable[..., Tensor]:
        compute = current_of(synapse)

        def conduct(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            use = self._next_use(name)
            self.inputs[use] = torch.autograd.graph.get_gradient_edge(x).node if x.requires_grad else None
            return _mark(compute(x, weight, bias), "current", use)

        return conduct

    def _arrive(self, name: str, watch: StateWatch | None) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def arrive(
            neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if watch is not None and not watch.before(neuron, arguments, keywords):
                self.starts[name] = self.starts.get(name, 0) + 1
            use = self._next_use(name)
            current = _mark(arguments[0], "inside", use)
            self.arrivals[use] = (current.grad_fn, current.shape)
            return (current, *arguments[1:]), keywords

        return arrive

    def _fire(self, name: str, watch: StateWatch | None) -> Callable[..., Any]:
        def fire(neuron: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
            if watch is not None:
                watch.after(neuron, output)
            spikes = spikes_of(output)
            if not spikes.requires_grad:  # a neuron's first spikes may depend on nothing yet
                spikes = spikes.detach().requires_grad_()
            marked = _mark(spikes, "spikes", (name, self.calls[name] - 1))
            self.fired[name] = None
            self._spikes.append((name, marked, marked._version))
            return with_spikes(output, marked)

        return fire
