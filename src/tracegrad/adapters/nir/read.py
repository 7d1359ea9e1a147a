"""NIR graphs as models that train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from tracegrad.adapters.nir.units import DT, neuron_of
from tracegrad.snn.neurons import LIF


def from_nir(
    graph: nir.NIRGraph | str | Path, dt: float = DT, surrogate: str = "boxcar", detach_reset: bool = False
) -> Network:
    """Builds a model of a NIR graph, to run and to train.

    Args:
        graph: of Conv2d, Linear, Affine, SumPool2d, AvgPool2d, Flatten, LIF and IF nodes without recurrence; or the
            path of a file that holds one.
        dt: the Euler step in seconds: a LIF node's leak is 1 - dt / tau.
        surrogate: the neurons' surrogate, which NIR does not know.
        detach_reset: cuts the gradient through the spike in the reset.

    Returns:
        The model: [T, B, ...] -> [T, B, ...]. Its modules have the names of the nodes. A convolution whose bias is
        zero gets none.

    Raises:
        ValueError: nodes of other kinds, or with what ours cannot do, by name; a graph with recurrence, or without
            exactly one input and one output.
        OSError: the file cannot be read.
    """
    if isinstance(graph, str | Path):
        graph = nir.read(graph)
    neuron = partial(LIF, surrogate=surrogate, detach_reset=detach_reset)
    layers: dict[str, nn.Module] = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.Input | nir.Output):
            continue
        try:
            layers[name] = neuron_of(node, dt, neuron) if isinstance(node, nir.LIF | nir.IF) else _layer(node)
        except ValueError as error:
            raise ValueError(f"node {name!r} ({type(node).__name__}) {error}") from None
    return Network(layers, graph.edges, _only("Input", graph.inputs), _only("Output", graph.outputs))


def _only(kind: str, nodes: Mapping[str, Any]) -> str:
    if len(nodes) != 1:
        raise ValueError(f"the graph must have one {kind} node, not {len(nodes)}")
    return next(iter(nodes))


class Network(nn.Module):
    """The layers of a graph: [T, B, ...] -> [T, B, ...], time first. A layer reads the sum of what its edges bring.

    Args:
        layers: by the names of nodes; dots make modules in modules.
        edges: (from, to).
        start: the name of the input.
        end: the name of the output.

    Raises:
        ValueError: the graph has recurrence, or a name that no module can have.
    """

    def __init__(self, layers: Mapping[str, nn.Module], edges: Sequence[tuple[str, str]], start: str, end: str) -> None:
        super().__init__()
        for name, layer in layers.items():
            _place(self, name, layer)
        sources: dict[str, list[str]] = {name: [] for name in (start, *layers, end)}
        for before, after in edges:
            sources[after].append(before)
        try:
            order = list(TopologicalSorter(sources).static_order())
        except CycleError as error:
            raise ValueError(f"the graph has recurrence through {error.args[1]}; ours have none") from None
        self._sources = {name: sources[name] for name in order if name != start}
        self._start, self._end = start, end

    def forward(self, x: Tensor) -> Tensor:
        """What the graph makes of T steps of its input."""
        values = {self._start: x}
        for name, sources in self._sources.items():
            total = values[sources[0]]
            for source in sources[1:]:
                total = total + values[source]
            values[name] = total if name == self._end else self._apply_layer(self.get_submodule(name), total)
        return values[self._end]

    def _apply_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, LIF):
            return layer(x)
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _place(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Adds a module at a path, with modules that only hold others on the way."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(root.named_children()):
            _place(root, part, nn.Module())
        root = root.get_submodule(part)
    try:
        root.add_module(last, layer)
    except KeyError:
        raise ValueError(f"no module can have the name of node {name!r}; rename it in the graph") from None


def _layer(node: nir.NIRNode) -> nn.Module:
    """The layer of a node that is no neuron."""
    if isinstance(node, nir.Linear | nir.Affine):
        return _with_weights(
            partial(nn.Linear, node.weight.shape[1], len(node.weight)), node.weight, getattr(node, "bias", None)
        )
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str | bytes) else _pair(node.padding)
        make = partial(
            nn.Conv2d,
            node.weight.shape[1] * int(node.groups),
            len(node.weight),
            node.weight.shape[2:],
            _pair(node.stride),
            padding.decode() if isinstance(padding, bytes) else padding,
            _pair(node.dilation),
            int(node.groups),
        )
        return _with_weights(make, node.weight, node.bias if np.any(node.bias) else None)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        kernel, stride, padding = (_pair(each) for each in (node.kernel_size, node.stride, node.padding))
        return nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)
    if isinstance(node, nir.Flatten):
        return nn.Flatten(*(int(dim) + (dim >= 0) for dim in (node.start_dim, node.end_dim)))
    raise ValueError("has no layer in tracegrad")


def _with_weights(
    make: partial[nn.Conv2d] | partial[nn.Linear], weight: np.ndarray, bias: np.ndarray | None
) -> nn.Module:
    layer = make(bias=bias is not None, dtype=torch.as_tensor(weight).dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(bias))
    return layer


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = (int(each) for each in np.atleast_1d(value))
    return first, rest[0] if rest else first
