"""The layers of a graph as a module."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

import torch
from torch import Tensor, nn

from tracegrad.snn.neurons import LIF

Value = TypeVar("Value")


class Network(nn.Module):
    """The layers of a graph: [T, B, ...] -> [T, B, ...], time first. A layer reads the sum of its edges.

    Args:
        layers: by the names of their nodes; dots make modules in modules.
        edges: (from, to).
        start: the name of the input.
        end: the name of the output.

    Raises:
        ValueError: an edge that is given twice, names no node, or leads into the input or out of the output; a node
            without an edge into it; recurrence; a name that no module can have.
    """

    def __init__(self, layers: Mapping[str, nn.Module], edges: Sequence[tuple[str, str]], start: str, end: str) -> None:
        super().__init__()
        sources: dict[str, list[str]] = {name: [] for name in (start, *layers, end)}
        for before, after in edges:
            for name in (before, after):
                if name not in sources:
                    raise ValueError(f"edge {(before, after)} names {name!r}, which is no node of the graph")
            if after == start or before == end:
                raise ValueError(f"edge {(before, after)} leads into the input or out of the output")
            if before in sources[after]:
                raise ValueError(f"edge {(before, after)} is there twice; an edge carries its signal once")
            sources[after].append(before)
        try:
            order = list(TopologicalSorter(sources).static_order())
        except CycleError as error:
            raise ValueError(f"the graph has recurrence through {error.args[1]}, which is not supported") from None
        for name in order:
            if name != start and not sources[name]:
                raise ValueError(f"node {name!r} has no edge into it")
        self._sources = {name: sources[name] for name in order if name != start}
        self._start, self._end = start, end
        for name, layer in layers.items():
            _place(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the graph for T steps of its input."""

        def apply(name: str, inputs: list[Tensor]) -> Tensor:
            total = reduce(torch.add, inputs)
            return total if name == self._end else self._apply_layer(self.get_submodule(name), total)

        return self.walk(x, apply)

    def walk(self, start: Value, apply: Callable[[str, list[Value]], Value]) -> Value:
        """Calls apply(name, what the node's edges carry) for every node but the input, in the order of computation.

        Args:
            start: what the input carries.
            apply: gives what the node carries.

        Returns:
            What the output carries.
        """
        values = {self._start: start}
        for name, sources in self._sources.items():
            values[name] = apply(name, [values[source] for source in sources])
        return values[self._end]

    def _apply_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, LIF):
            return layer(x)
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _place(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Adds a module at a path, with modules that only hold others on the way."""
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in dict(root.named_children()):
                root.add_module(part, nn.Module())
            root = root.get_submodule(part)
        if last not in dict(root.named_children()):
            root.add_module(last, layer)
            return
    except (KeyError, AttributeError):  # not a name, or that of something else
        pass
    raise ValueError(f"no module can have the name of node {name!r} beside the others; rename it in the graph")
