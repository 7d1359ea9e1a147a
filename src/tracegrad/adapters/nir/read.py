"""NIR graphs as models that train."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any

import nir
import torch
from torch import nn

from tracegrad.adapters.nir.fields import integers
from tracegrad.adapters.nir.file import read_graph
from tracegrad.adapters.nir.layers import Shape, layer_of, shape_after
from tracegrad.adapters.nir.network import Network
from tracegrad.adapters.nir.units import DT, check_dt, neuron_of
from tracegrad.snn.neurons import LIF
from tracegrad.snn.surrogate import SURROGATES


def from_nir(
    graph: nir.NIRGraph | str | Path, dt: float = DT, surrogate: str = "boxcar", detach_reset: bool = False
) -> Network:
    """Builds a model from a NIR graph, to run and to train.

    Args:
        graph: of Conv1d, Conv2d, Linear, Affine, SumPool2d, AvgPool2d, Flatten, LIF and IF nodes without recurrence;
            or the path of a file that holds one. Its fields may be arrays or tensors.
        dt: the Euler step in seconds: a LIF node's leak is 1 - dt / tau.
        surrogate: the neurons' surrogate, which is not part of NIR.
        detach_reset: cuts the gradient through the spike in the reset.

    Returns:
        The model: [T, B, ...] -> [T, B, ...]. Its modules have the names of the nodes. A convolution whose bias is
        zero gets none. Weights of several precisions get the highest of them.

    Raises:
        ValueError: a file that holds no graph; nodes of other kinds, or with fields that are missing, no numbers, not
            finite, of a wrong shape, or beyond what our layers can do; shapes that do not fit each other; recurrence;
            not exactly one input and one output; dt not positive; an unknown surrogate. The error names the node.
        TypeError: `graph` is neither a graph nor a path.
        OSError: the file cannot be opened.
    """
    if isinstance(graph, str | Path):
        graph = read_graph(Path(graph))
    if not isinstance(graph, nir.NIRGraph):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not always typed
        raise TypeError(f"graph must be a nir.NIRGraph or the path of a file, not {type(graph).__name__}")
    check_dt(dt)
    SURROGATES[surrogate]
    nodes, edges = _parts(graph)
    start, end = (_only(kind, nodes) for kind in (nir.Input, nir.Output))
    make = partial(LIF, surrogate=surrogate, detach_reset=detach_reset)
    layers = {name: _layer(name, node, dt, make) for name, node in nodes.items() if name not in (start, end)}
    dtypes = [parameter.dtype for layer in layers.values() for parameter in layer.parameters()]
    for layer in layers.values():
        if not isinstance(layer, LIF) and len(set(dtypes)) > 1:
            layer.to(reduce(torch.promote_types, dtypes))
    network = Network(layers, edges, start, end)
    _check_shapes(network, layers, nodes, start, end)
    return network


def _parts(graph: nir.NIRGraph) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges."""
    nodes: Any = graph.nodes
    if not isinstance(nodes, Mapping) or not all(isinstance(name, str) for name in nodes):
        raise ValueError(f"the graph's nodes must be a dictionary by name, not {type(nodes).__name__}")
    edges: list[tuple[str, str]] = []
    for edge in graph.edges if isinstance(graph.edges, list | tuple) else [graph.edges]:  # pyright: ignore[reportUnnecessaryIsInstance]
        if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"an edge must be a pair of names, not {edge!r:.60}")
        edges.append((edge[0], edge[1]))
    return dict(nodes), edges


def _only(kind: type[nir.NIRNode], nodes: Mapping[str, Any]) -> str:
    names = [name for name, node in nodes.items() if isinstance(node, kind)]
    if len(names) != 1:
        raise ValueError(f"the graph must have one {kind.__name__} node, not {len(names)}")
    return names[0]


def _named(name: str, node: Any, error: ValueError) -> ValueError:
    return ValueError(f"node {name!r} ({type(node).__name__}) {error}")


def _layer(name: str, node: Any, dt: float, make: partial[LIF]) -> nn.Module:
    try:
        return neuron_of(node, dt, make) if isinstance(node, nir.LIF | nir.IF) else layer_of(node)
    except ValueError as error:
        raise _named(name, node, error) from None
    except AttributeError as error:
        raise _named(name, node, ValueError(f"lacks a field: {error}")) from None
    except (RuntimeError, TypeError, OverflowError) as error:
        raise _named(name, node, ValueError(f"makes no layer: {error}")) from None


def _check_shapes(
    network: Network, layers: Mapping[str, nn.Module], nodes: Mapping[str, Any], start: str, end: str
) -> None:
    """Checks that every layer can take what it gets. Norse counts the batch as a first dimension; others don't."""
    given, wanted = _declared(start, nodes[start], "input"), _declared(end, nodes[end], "output")

    def apply(name: str, shapes: list[Shape]) -> Shape:
        if len(set(shapes)) > 1:
            several = " and ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
            raise _named(name, nodes[name], ValueError(f"adds the shapes {several}, which differ"))
        if name == end:
            return shapes[0]
        try:
            return shape_after(layers[name], nodes[name], shapes[0])
        except ValueError as error:
            raise _named(name, nodes[name], error) from None

    def check(given: Shape, wanted: Shape) -> None:
        found = network.walk(given, apply)
        if found != wanted:
            raise _named(end, nodes[end], ValueError(f"declares the shape {list(wanted)}, and gets {list(found)}"))

    try:
        check(given, wanted)
    except ValueError as error:
        try:
            check(given[1:], wanted[1:])
        except ValueError:
            raise error from None


def _declared(name: str, node: Any, side: str) -> Shape:
    """The shape in an Input or Output node."""
    types = getattr(node, f"{side}_type", None)
    try:
        return integers(types.get(side) if isinstance(types, Mapping) else None, "shape", least=1)
    except ValueError as error:
        raise _named(name, node, error) from None
