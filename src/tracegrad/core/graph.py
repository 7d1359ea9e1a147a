"""Reads a marked autograd graph backwards: where a neuron's current began, and what a synapse's input is made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Node = Any  # an autograd node; PyTorch does not type them
Use = tuple[str, int]
"""A module's name and which of its calls within one forward pass, from 0."""

# What a node does with the elements that pass it. In ALIGNED each element of the output comes from the one at the same
# place; LAYOUT nodes only move elements, and their own backward says where to.
_LAYOUT = {"View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Unsqueeze", "Squeeze", "Alias"}
_VIEW_WRITTEN_IN_PLACE = "AsStrided"
_STEPS = {"Select", "Stack"}
_PRODUCTS = {"Mul", "Div", "Addcmul"}
_DROPOUT = {"NativeDropout", "FusedDropout", "FeatureDropout"}
_COPIES = {"Clone", "ToCopy", "Contiguous"}
_SUMS = {"Add", "Sub", "Rsub", "Neg"}
_NORMS = {"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "MkldnnBatchNorm", "NativeLayerNorm"}
_OTHER_NORMS = {"NativeGroupNorm", "FusedRmsNorm"}
_ACTIVATIONS = {"Relu", "LeakyRelu", "Gelu", "Silu", "Sigmoid", "Tanh", "Clamp", "Hardtanh", "Elu", "Softplus", "Abs"}
_ALIGNED = _PRODUCTS | _DROPOUT | _COPIES | _SUMS | _NORMS | _OTHER_NORMS | _ACTIVATIONS
_POOLS_2D = {"MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "Mean"}
_POOLS_1D = {"MaxPool1D", "AvgPool1D", "AdaptiveAvgPool1D", "AdaptiveMaxPool1D", "MkldnnMaxPool2D"}
_POOLS = _POOLS_1D | _POOLS_2D
# What spikes may pass on their way into a synapse.
_GATHERING = {"Cat", "Stack", "Slice", "Select", "Unbind", "Index", "Split", "Chunk", "Narrow", "Expand", "Repeat"}
_FILLING = {"ConstantPadNd", "UpsampleNearest1D", "UpsampleNearest2D", "Flip"}
_CARRIES_SPIKES = _LAYOUT | _POOLS | _GATHERING | _FILLING | _PRODUCTS | _DROPOUT | _COPIES | _SUMS


def _operation(node: Node) -> str:
    """A node's operation without PyTorch's suffix: "Add" for AddBackward0."""
    return node.name().split("Backward")[0].removeprefix("torch::autograd::")


def _before(node: Node) -> Iterator[tuple[Node, torch.Size]]:
    """The nodes whose outputs a node took, with the shapes of these outputs."""
    for child, output in node.next_functions:
        if child is not None:
            yield child, torch.Size(child._input_metadata[output].shape)


@dataclass
class Arrival:
    """A synapse's current that reaches a neuron; `step` says at which step, if at one alone."""

    use: Use
    refused: str | None
    misfolded: bool = False
    step: int | None = None


def currents(arrival: Node, shape: torch.Size) -> list[Arrival]:
    """The currents behind a neuron's input, each with the reason, if any, why its elements are not the neuron's.

    Walks back with the place of each of the neuron's elements, a tensor of indices that layout nodes move; -1 is none.
    """
    found: dict[Use, Arrival] = {}
    places = torch.arange(shape.numel()).reshape(shape)
    stack: list[tuple[Node, Tensor, str | None]] = [
        (child, places.reshape(size), None) for child, size in _before(arrival)
    ]
    seen: set[tuple[Node, int | None]] = set()
    while stack:
        node, places, refused = stack.pop()
        visit = node, None if refused else hash(places.numpy().tobytes())  # one stack holds many steps
        if visit in seen:
            continue
        seen.add(visit)
        kind = getattr(node, "kind", None)
        if kind == "current":
            arrived = _arrived(node.use, places, shape, refused)
            if node.use not in found or found[node.use].refused:
                found[node.use] = arrived
        elif kind is None:
            stack += _step_back(node, places, refused)
    return list(found.values())


def _arrived(use: Use, places: Tensor, shape: torch.Size, refused: str | None) -> Arrival:
    places = places.flatten()
    places = places[places >= 0]
    in_order = torch.arange(places.numel())
    whole, per_step = places.numel() == shape.numel(), shape.numel() // shape[0]
    if refused or (whole and torch.equal(places, in_order)):
        return Arrival(use, refused)
    if places.numel() == per_step:
        step, rest = divmod(int(places[0]), per_step)
        if not rest and torch.equal(places, in_order + step * per_step):
            return Arrival(use, None, step=step)
    if not whole:
        return Arrival(use, "a part of its current alone reaches the neuron")
    misfolded = not torch.equal(places // per_step, in_order // per_step)
    return Arrival(use, "its current is permuted on its way to the neuron", misfolded)


def _step_back(node: Node, places: Tensor, refused: str | None) -> list[tuple[Node, Tensor, str | None]]:
    operation = _operation(node)
    before = list(_before(node))
    if operation in _LAYOUT and not refused:
        (child, size), *_ = before
        return [(child, node(places).reshape(size), None)]
    if operation == _VIEW_WRITTEN_IN_PLACE and not refused and node(places).numel() == places.numel():
        return [(before[0][0], node(places), None)]
    if operation == "CopySlices" and not refused:
        return _through_writing_in_place(node, places)
    if operation in _STEPS and not refused:
        return _through_steps(node, operation, places, before)
    if not refused and (through_mean := _through_mean_over_time(operation, places, before)) is not None:
        return [(before[0][0], through_mean, None)]
    # What is smaller than the current is a parameter or a statistic of a norm, broadcast over it.
    whole = [(child, size) for child, size in before if size.numel() >= places.numel() or refused]
    if not refused:
        refused = _refuse_step(operation, places, whole)
    return [(child, places if refused else places.reshape(size), refused) for child, size in whole]


def _through_steps(
    node: Node, operation: str, places: Tensor, before: list[tuple[Node, torch.Size]]
) -> list[tuple[Node, Tensor, str | None]]:
    """The places behind steps that are stacked to all of them, or behind all of them that one is taken from."""
    if operation == "Select":
        ((child, size),) = before
        return [(child, (node(places + 1) - 1).reshape(size), None)]  # its own backward fills up with 0
    steps = zip(node.next_functions, places.unbind(node._saved_dim), strict=True)
    taken = [(child, step) for (child, _), step in steps if child is not None and bool((step >= 0).any())]
    return [(child, step, None) for child, step in taken]


def _through_writing_in_place(node: Node, places: Tensor) -> list[tuple[Node, Tensor, str | None]]:
    """The places behind a sum or a copy that is written into a view, and behind what was there before.

    The node does not tell its operation; but only the gradient of a sum or copy is, but for its sign, what arrives.
    """
    children = list(_before(node))
    parts = node((places + 1).double())
    moved = [part for part in (parts if isinstance(parts, tuple) else (parts,)) if part is not None]
    behind: list[tuple[Node, Tensor, str | None]] = []
    for (child, size), part in zip(children, moved, strict=True):
        part = part.abs().reshape(size)
        told = part[part > 0]
        if told.unique().numel() == told.numel() and bool(torch.isin(told, places.double() + 1).all()):
            behind.append((child, part.long() - 1, None))
        elif size.numel() >= places.numel():
            behind.append(
                (child, places, "an operation in place on its way to the neuron does more than add to its current")
            )
    return behind


def _through_mean_over_time(operation: str, places: Tensor, before: list[tuple[Node, torch.Size]]) -> Tensor | None:
    """The places behind one half of a mean over time that is repeated at every step; None at other operations."""
    if operation not in ("Expand", "Mean"):
        return None
    ((_, size),) = before
    if operation == "Expand" and size == (1, *places.shape[1:]):
        return places[:1]
    if operation == "Mean" and places.shape == (1, *size[1:]):
        steps = torch.arange(size[0]).reshape(-1, *(1 for _ in size[1:]))
        return places + places.numel() * steps
    return None


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


def refuse_input(node: Node | None, data: set[Node], spiking_input: bool) -> str | None:
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
