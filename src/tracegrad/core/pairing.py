"""Finds the pairs of a model: which synapse's current reaches which neuron, and whether spikes drive that synapse.

One example forward pass is run with marks in its autograd graph where currents begin and arrive and where spikes
begin and arrive; the graph is then walked back from each arrival to what it came from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tracegrad.core.neurons import is_neuron
from tracegrad.core.synapse import install_gate, is_synapse, overrides_current, remove_gate

Node = Any  # an autograd node; PyTorch does not type them
Use = tuple[str, int]
"""A module's name and which of its calls within one forward pass, from 0."""


@dataclass
class Pairing:
    """What the example forward pass showed.

    Attributes:
        receivers: for each use of a neuron, the uses of synapses whose currents it sums and that can be scaled.
        refused: for each use of a synapse that can't be scaled, why.
        neurons: the names of all neurons that fired.
        written_in_place: the neurons whose spikes the model writes over.
        calls: how often each synapse was called.
    """

    receivers: dict[Use, list[Use]] = field(default_factory=dict[Use, list[Use]])
    refused: dict[Use, str] = field(default_factory=dict[Use, str])
    neurons: list[str] = field(default_factory=list[str])
    written_in_place: set[str] = field(default_factory=set[str])
    calls: dict[str, int] = field(default_factory=dict[str, int])

    def is_paired(self, use: Use) -> bool:
        """Whether this use of a synapse can be scaled."""
        return any(use in uses for uses in self.receivers.values())


def find_pairs(model: nn.Module, example: tuple[Any, ...], spiking_input: bool) -> Pairing:
    """Runs the example and pairs every use of a synapse with the neurons that its current reaches.

    The model's parameters, buffers, hooks, gradients and training mode and the random state stay as they are.

    Args:
        model: with synapses and registered neurons.
        example: the arguments of one forward pass.
        spiking_input: the example's tensors are spikes too.

    Raises:
        ValueError: time is not the first dimension, time-major, between a synapse and its neuron.
    """
    trial = _Trial(model)
    data = trial.run(example)
    pairing = Pairing(neurons=list(trial.fired), written_in_place=trial.written_in_place(), calls=trial.calls)
    steps = {shape[0]: name for (name, _), (_, shape) in trial.arrivals.items()}
    if len(steps) > 1:
        told = ", ".join(f"T = {time_steps} in {name}" for time_steps, name in steps.items())
        raise ValueError(f"T must not change within one forward pass, but it does: {told}")
    drives = {use: _refuse_input(node, data, spiking_input) for use, node in trial.inputs.items()}
    reached: dict[Use, str | None] = {}
    for neuron, (node, shape) in trial.arrivals.items():
        for current in _currents(node, shape):
            reason = current.refused or drives[current.use]
            if not reason:
                pairing.receivers.setdefault(neuron, []).append(current.use)
            elif current.misfolded:
                raise ValueError(
                    f"{current.use[0]} folds time behind the batch, but its neuron {neuron[0]} takes [T, B, ...]: "
                    "fold time-major, x.flatten(0, 1) of [T, B, ...]"
                )
            reached[current.use] = reached.get(current.use) or reason
    for use, reason in drives.items():
        if not pairing.is_paired(use):
            no_neuron = "no post-synaptic neuron: its current reaches none"
            pairing.refused[use] = reason or reached.get(use, no_neuron) or no_neuron
    return pairing


class _Mark(torch.autograd.Function):
    """The identity; its node in the graph says what passes there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: Literal["current", "spikes", "inside"], use: Use) -> Tensor:
        ctx.kind, ctx.use = kind, use
        return x.clone()  # not a view: the model may write it in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


def _mark(x: Tensor, kind: Literal["current", "spikes", "inside"], use: Use) -> Tensor:
    return _Mark.apply(x, kind, use)  # pyright: ignore[reportReturnType]


class _Trial:
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
        handles = [neuron.register_forward_pre_hook(self._arrive(name)) for name, neuron in self.spiking.items()]
        handles += [neuron.register_forward_hook(self._fire(name)) for name, neuron in self.spiking.items()]
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
        return {torch.autograd.graph.get_gradient_edge(tensor).node for tensor in entered}

    def written_in_place(self) -> set[str]:
        return {name for name, spikes, version in self._spikes if spikes._version != version}

    def _next_use(self, name: str) -> Use:
        self.calls[name] = self.calls.get(name, 0) + 1
        return name, self.calls[name] - 1

    def _conduct(self, name: str, synapse: nn.Module) -> Callable[..., Tensor]:
        compute = _class_current(synapse)

        def conduct(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            use = self._next_use(name)
            self.inputs[use] = x.grad_fn
            if x.requires_grad and x.grad_fn is None:
                self.inputs[use] = torch.autograd.graph.get_gradient_edge(x).node
            return _mark(compute(x, weight, bias), "current", use)

        return conduct

    def _arrive(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def arrive(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            use = self._next_use(name)
            current = _mark(arguments[0], "inside", use)
            self.arrivals[use] = (current.grad_fn, current.shape)
            return current, *arguments[1:]

        return arrive

    def _fire(self, name: str) -> Callable[..., Tensor]:
        def fire(_: nn.Module, __: tuple[Any, ...], spikes: Tensor) -> Tensor:
            marked = _mark(spikes, "spikes", (name, self.calls[name] - 1))
            self.fired[name] = None
            self._spikes.append((name, marked, marked._version))
            return marked

        return fire


def _class_current(synapse: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    if isinstance(synapse, nn.Linear):
        return torch.nn.functional.linear
    assert isinstance(synapse, nn.Conv1d | nn.Conv2d)
    return synapse._conv_forward


# What a node does with the elements that pass it. In ALIGNED each element of the output comes from the one at the same
# place; LAYOUT nodes only move elements, and their own backward says where to.
_LAYOUT = {"View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Unsqueeze", "Squeeze", "Alias"}
_PRODUCTS = {"Mul", "Div", "Addcmul"}
_DROPOUT = {"NativeDropout", "FusedDropout", "FeatureDropout"}
_COPIES = {"Clone", "ToCopy", "Contiguous"}
_SUMS = {"Add", "Sub", "Rsub", "Neg"}
_NORMS = {"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "MkldnnBatchNorm", "NativeLayerNorm"}
_NORMS |= {"NativeGroupNorm", "FusedRmsNorm"}
_ACTIVATIONS = {"Relu", "LeakyRelu", "Gelu", "Silu", "Sigmoid", "Tanh", "Clamp", "Hardtanh", "Elu", "Softplus", "Abs"}
_ALIGNED = _PRODUCTS | _DROPOUT | _COPIES | _SUMS | _NORMS | _ACTIVATIONS
_POOLS = {"MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "Mean"}
_POOLS |= {"MaxPool1D", "AvgPool1D", "AdaptiveAvgPool1D", "AdaptiveMaxPool1D", "MkldnnMaxPool2D"}
# What spikes may pass on their way into a synapse.
_GATHERING = {"Cat", "Stack", "Slice", "Select", "Index", "Split", "Chunk", "Narrow", "Expand", "Repeat"}
_GATHERING |= {"ConstantPadNd", "UpsampleNearest1D", "UpsampleNearest2D", "Flip"}
_CARRIES_SPIKES = _LAYOUT | _POOLS | _GATHERING | _PRODUCTS | _DROPOUT | _COPIES | _SUMS


def _operation(node: Node) -> str:
    """A node's operation without PyTorch's suffix: "Add" for AddBackward0."""
    return node.name().split("Backward")[0].removeprefix("torch::autograd::")


def _before(node: Node) -> Iterator[tuple[Node, torch.Size]]:
    """The nodes whose outputs a node took, with the shapes of these outputs."""
    for child, output in node.next_functions:
        if child is not None:
            yield child, torch.Size(child._input_metadata[output].shape)


@dataclass
class _Arrival:
    """A synapse's current that reaches a neuron."""

    use: Use
    refused: str | None
    misfolded: bool = False


def _currents(arrival: Node, shape: torch.Size) -> list[_Arrival]:
    """The currents behind a neuron's input, each with the reason, if any, why its elements are not the neuron's.

    Walks back with the place of each of the neuron's elements, a tensor of indices that layout nodes move.
    """
    found: dict[Use, _Arrival] = {}
    places = torch.arange(shape.numel()).reshape(shape)
    stack: list[tuple[Node, Tensor, str | None]] = [
        (child, places.reshape(size), None) for child, size in _before(arrival)
    ]
    seen: set[tuple[Node, bool]] = set()
    while stack:
        node, places, refused = stack.pop()
        if (node, refused is None) in seen:
            continue
        seen.add((node, refused is None))
        kind = getattr(node, "kind", None)
        if kind == "current":
            arrived = _arrived(node.use, places, shape, refused)
            if node.use not in found or found[node.use].refused:
                found[node.use] = arrived
        elif kind is None:
            stack += _step_back(node, places, refused)
    return list(found.values())


def _arrived(use: Use, places: Tensor, shape: torch.Size, refused: str | None) -> _Arrival:
    in_order = torch.arange(places.numel())
    if refused or torch.equal(places.flatten(), in_order):
        return _Arrival(use, refused)
    per_step = places.numel() // shape[0]
    misfolded = not torch.equal(places.flatten() // per_step, in_order // per_step)
    return _Arrival(use, "its current is permuted on its way to the neuron", misfolded)


def _step_back(node: Node, places: Tensor, refused: str | None) -> list[tuple[Node, Tensor, str | None]]:
    operation = _operation(node)
    before = list(_before(node))
    if operation in _LAYOUT and not refused:
        (child, size), *_ = before
        return [(child, node(places).reshape(size), None)]
    # What is smaller than the current is a parameter or a statistic of a norm, broadcast over it.
    whole = [(child, size) for child, size in before if size.numel() >= places.numel() or refused]
    if not refused:
        refused = _refuse_step(operation, places, whole)
    return [(child, places if refused else places.reshape(size), refused) for child, size in whole]


def _refuse_step(operation: str, places: Tensor, before: list[tuple[Node, torch.Size]]) -> str | None:
    if operation in _POOLS:
        return f"its current is pooled ({operation}) on its way to the neuron"
    if operation in _PRODUCTS and sum(_carries_current(child) for child, _ in before) > 1:
        return "its current is multiplied by another one on its way to the neuron"
    if operation not in _ALIGNED or any(size.numel() != places.numel() for _, size in before):
        return f"its current passes {operation} on its way to the neuron, which does not keep its shape and order"
    return None


def _carries_current(node: Node) -> bool:
    return any(getattr(end, "kind", None) in ("current", "spikes") for end in _ends(node))


def _ends(start: Node, passes: Callable[[Node], bool] = lambda _: True) -> Iterator[Node]:
    """The marks, leaves and impassable nodes that all ways back from a node, itself included, lead to."""
    stack, seen = [start], {start}
    while stack:
        node = stack.pop()
        before = [child for child, _ in _before(node)]
        if getattr(node, "kind", None) or not before or not passes(node):
            yield node
            continue
        for child in before:
            if child not in seen:
                seen.add(child)
                stack.append(child)


def _refuse_input(node: Node | None, data: set[Node], spiking_input: bool) -> str | None:
    """Why a synapse's input is not made of spikes; None if it is."""
    if node is None:
        return "no pre-synaptic spikes: its input is a constant"
    for end in _ends(node, lambda node: _operation(node) in _CARRIES_SPIKES):
        kind = getattr(end, "kind", None)
        if kind == "current":
            return f"no pre-synaptic spikes: its input is, in part, the current of {end.use[0]}"
        if kind is None and end in data:
            if not spiking_input:
                return "no pre-synaptic spikes: its input is the data (spiking_input=True if these are spikes)"
        elif kind is None and not end.next_functions:
            return "no pre-synaptic spikes: a parameter is mixed into its input"
        elif kind is None:
            return f"no pre-synaptic spikes: its input has passed {_operation(end)}, which does not keep spikes"
    return None
