"""Reads a marked autograd graph backwards: where a neuron's current began, and what a synapse's input is made of.

README.md beside this file shows how, with an example.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Size, Tensor

from tracegrad.core.pairing.operations import ALIGNED, CARRIES_SPIKES, LAYOUT, PASSED_THROUGH, POOLS, PRODUCTS
from tracegrad.core.torch_internals import (
    Node,
    gradient_of,
    gradients_of,
    inputs_of,
    output_shape,
    outputs_of,
    stacked_dimension,
)

Use = tuple[str, int]
"""A module's name and which of its calls within one forward pass, from 0."""


STOPS = ("current", "spikes", "input")
"""The kinds of marks at which a way back ends."""


@dataclass
class ReachedCurrent:
    """A synapse's current that a neuron's input leads back to.

    Attributes:
        use: of the synapse.
        places: shaped like the current: at which place of the neuron's input each of its elements arrives, -1 for none.
        refused: why they don't arrive one by one; None if they do.
        route: the inputs of nodes that lead from the neuron's input back to the current.
        pooled: how many elements of the current stand for one of the neuron.
    """

    use: Use
    places: Tensor
    refused: str | None
    route: tuple[int, ...]
    pooled: Fraction = Fraction(1)


@dataclass(frozen=True)
class Visit:
    """A node on the way back, and what the way knows of the elements there; `output` is which of its outputs."""

    node: Node
    output: int
    places: Tensor
    refused: str | None = None
    route: tuple[int, ...] = ()
    pooled: Fraction = Fraction(1)


def operation_of(node: Node) -> str:
    """A node's operation without PyTorch's suffix: "Add" for AddBackward0."""
    name = node.name().removeprefix("torch::autograd::")
    return name.rpartition("Backward")[0] or name


def kind_of(node: Node) -> str | None:
    """What a mark says passes there; None for other nodes.

    "current", "spikes" and "input" (of a neuron) are ends of a way; "product" is the current of a synapse from one
    neuron to one, or just a gain or a part of a norm, so ways go on behind it.
    """
    return getattr(node, "kind", None)


def reached_currents(node: Node, places: Tensor, through_pools: bool) -> list[ReachedCurrent]:
    """The currents behind a neuron's input, each with the reason, if any, why its elements are not the neuron's.

    Walks back with the place of each of the neuron's elements, a tensor of indices that layout nodes move; -1 is none.

    Args:
        node: the mark at the neuron's input.
        places: the index of each element of that input.
        through_pools: go on through pools.
    """
    found: dict[Use, ReachedCurrent] = {}
    stack = [
        Visit(child, output, places.reshape(size), route=(index,))
        for index, (child, output, size) in enumerate(inputs_of(node))
    ]
    seen: set[tuple[Node, int, int | None]] = set()
    while stack:
        visit = stack.pop()
        # One stack holds many steps, so a node may be visited with other places.
        key = visit.node, visit.output, None if visit.refused else hash_of(visit.places)
        if key in seen:
            continue
        seen.add(key)
        kind = kind_of(visit.node)
        if kind in ("current", "product"):
            known = found.get(visit.node.use)
            if known is None or known.refused:
                found[visit.node.use] = ReachedCurrent(
                    visit.node.use, visit.places, visit.refused, visit.route, visit.pooled
                )
            elif not visit.refused:
                known.places = torch.where(visit.places >= 0, visit.places, known.places)
        if kind in ("product", None):
            stack += step_back(visit, through_pools)
    return list(found.values())


def hash_of(places: Tensor) -> int:
    """Tells places apart."""
    flat = places.flatten()
    return hash((places.shape, int((flat * (torch.arange(len(flat)) * 2862933555777941757 + 3037000493)).sum())))


def carries_current(node: Node) -> bool:
    """Whether currents or spikes come to a node, on whatever way."""
    return any(kind_of(end) in ("current", "spikes") for end in ends(node))


def step_back(visit: Visit, through_pools: bool, carries: Callable[[Node], bool] = carries_current) -> list[Visit]:
    """What is before a node, with the places there, or the reason why the elements are not the same there.

    Args:
        visit: of the node.
        through_pools: go on through pools.
        carries: whether a current comes to a node, so that a product with another one refuses both.
    """
    node, places, operation = visit.node, visit.places, operation_of(visit.node)
    before = list(inputs_of(node))

    def child(
        index: int, places: Tensor, refused: str | None = visit.refused, pooled: Fraction = visit.pooled
    ) -> Visit:
        return Visit(*before[index][:2], places, refused, (*visit.route, index), pooled)

    if kind_of(node):  # a mark, which stands in the example alone
        (child_node, output, _) = before[0]
        return [replace(visit, node=child_node, output=output)]
    if visit.refused:
        return [child(index, places) for index in range(len(before))]
    if operation in PASSED_THROUGH and outputs_of(node) == len(before):
        return [child(visit.output, places)]
    if operation in LAYOUT or (operation == "AsStrided" and gradient_of(node, places).numel() == places.numel()):
        return [child(0, gradient_of(node, places).reshape(before[0][2]))]
    if operation == "Select":
        return [child(0, (gradient_of(node, places + 1) - 1).reshape(before[0][2]))]  # its own backward fills up with 0
    if operation == "Unbind":
        none = torch.full_like(places, 0)
        parts = [places + 1 if output == visit.output else none for output in range(outputs_of(node))]
        return [child(0, (gradient_of(node, *parts) - 1).reshape(before[0][2]))]
    if operation == "Stack":
        steps = enumerate(places.unbind(stacked_dimension(node)))
        indices = [index for index, (each, _) in enumerate(node.next_functions) if each is not None]
        position = {index: number for number, index in enumerate(indices)}
        return [child(position[i], step) for i, step in steps if i in position and bool((step >= 0).any())]
    if operation == "CopySlices":
        return [child(*step) for step in _written_in_place(node, places, before)]
    if (
        through_pools
        and operation in (*POOLS, "Mean")
        and (before_pool := _before_pool(operation, places, before[0][2]))
    ):
        return [child(0, before_pool[0], pooled=visit.pooled * before_pool[1])]
    through_mean = _through_mean_over_time(operation, places, [size for *_, size in before])
    if through_mean is not None:
        return [child(0, through_mean)]
    refused = _refuse_step(operation, places, before, carries)
    # What is smaller than the current is a parameter or a statistic of a norm, broadcast over it.
    whole = [i for i, (*_, size) in enumerate(before) if refused or size.numel() >= places.numel()]
    return [child(i, places if refused else places.reshape(before[i][2]), refused) for i in whole]


def _written_in_place(
    node: Node, places: Tensor, before: Sequence[tuple[Node, int, Size]]
) -> Iterator[tuple[int, Tensor, str | None]]:
    """The places behind a sum or a copy that is written into a view, and behind what was there before.

    The node does not tell its operation; but only the gradient of a sum or copy is, but for its sign, what arrives.
    """
    moved = [part for part in gradients_of(node, (places + 1).double()) if part is not None]
    for index, ((_, _, size), part) in enumerate(zip(before, moved, strict=True)):
        part = part.abs().reshape(size)
        told = part[part > 0]
        if told.unique().numel() == told.numel() and bool(torch.isin(told, places.double() + 1).all()):
            yield index, part.long() - 1, None
        elif size.numel() >= places.numel():
            yield index, places, "an operation in place on its way to the neuron does more than add to its current"


def _before_pool(operation: str, places: Tensor, size: Size) -> tuple[Tensor, Fraction] | None:
    """The places before a pool, numbered as if the neuron had an element for each, and how many stand for one.

    None where what is pooled is not, one after the other, the neuron's last dimensions.
    """
    pooled = POOLS[operation] if operation in POOLS else _averaged(places.shape, size)
    if not pooled or places.numel() == 0 or places.shape.numel() % size[:-pooled].numel():
        return None
    inside, outside = places.numel() // size[:-pooled].numel(), size[-pooled:].numel()
    blocks = places.reshape(-1, inside)
    first = blocks[:, :1]
    if not torch.equal(blocks, first + torch.arange(inside)) or bool((first % inside).any()):
        return None
    return (first // inside * outside + torch.arange(outside)).reshape(size), Fraction(outside, inside)


def _averaged(pooled: Size, size: Size) -> int:
    """How many of the last dimensions a mean is over, [.., 1, 1] or without them; 0 if it is over others."""
    kept = pooled if len(pooled) == len(size) else Size((*pooled, *(1 for _ in size[len(pooled) :])))
    last = next((dim for dim, (here, before) in enumerate(zip(kept, size, strict=True)) if here != before), len(size))
    return len(size) - last if all(here == 1 for here in kept[last:]) else 0


def _through_mean_over_time(operation: str, places: Tensor, sizes: Sequence[Size]) -> Tensor | None:
    """The places behind one half of a mean over time that is repeated at every step; None at other operations."""
    if operation not in ("Expand", "Mean"):
        return None
    (size,) = sizes
    if operation == "Expand" and size == (1, *places.shape[1:]):
        return places[:1]
    if operation == "Mean" and places.shape == (1, *size[1:]):
        steps = torch.arange(size[0]).reshape(-1, *(1 for _ in size[1:]))
        return places + places.numel() * steps
    return None


def _refuse_step(
    operation: str, places: Tensor, before: Sequence[tuple[Node, int, Size]], carries: Callable[[Node], bool]
) -> str | None:
    whole = [(node, size) for node, _, size in before if size.numel() >= places.numel()]
    if operation in POOLS or (operation == "Mean" and _averaged(places.shape, before[0][2])):
        return f"its current is pooled ({operation}) on its way to the neuron (through_pools=True looks through pools)"
    if operation in PRODUCTS and sum(carries(node) for node, _ in whole) > 1:
        return "its current is multiplied by another one on its way to the neuron"
    if operation not in ALIGNED or any(size.numel() != places.numel() for _, size in whole):
        return f"its current passes {operation} on its way to the neuron, which does not keep its shape and order"
    return None


def ends(start: Node, passes: Callable[[Node], bool] = lambda _: True) -> Iterator[Node]:
    """The marks, leaves and impassable nodes that all ways back from a node, itself included, lead to."""
    stack, seen = [start], {start}
    while stack:
        node = stack.pop()
        before = [child for child, *_ in inputs_of(node)]
        if kind_of(node) in STOPS or not before or not (kind_of(node) or passes(node)):
            yield node
            continue
        for child in before:
            if child not in seen:
                seen.add(child)
                stack.append(child)


def sources_of_spikes(node: Node) -> Iterator[Node]:
    """What a synapse's input is made of, as far back as spikes stay spikes."""
    return ends(node, _carries_spikes)


def _carries_spikes(node: Node) -> bool:
    operation = operation_of(node)
    if operation == "CopySlices":  # of a copy or a sum, not of a product, the gradient is what arrives
        arrives = torch.arange(1, output_shape(node).numel() + 1, dtype=torch.double).reshape(output_shape(node))
        parts = (part for part in gradients_of(node, arrives) if part is not None)
        return all(bool(torch.isin(part.abs()[part != 0], arrives).all()) for part in parts)
    return operation in CARRIES_SPIKES or operation in PASSED_THROUGH
