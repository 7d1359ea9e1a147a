"""NIR files as graphs, with errors that name what in the file is wrong.

The package nir reads the same files, but for a malformed one it raises a KeyError, an AssertionError or a TypeError
that does not say which node is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import nir

from tracegrad.adapters.nir.fields import short

DEEPEST = 16  # groups in groups; a graph has 4, and links can form a circle
SMALLEST = 2**26  # bytes that a data set of any file may have
DENSEST = 1100  # bytes that one byte of gzip can unpack to


def read_graph(path: Path) -> nir.NIRGraph:
    """The graph in a file.

    Raises:
        ValueError: the file holds no NIR graph; the error names the node, or the place in the file.
        OSError: the file cannot be opened.
    """
    with path.open("rb"):
        pass  # an error here is not about the content
    budget = max(SMALLEST, DENSEST * path.stat().st_size)
    try:
        with h5py.File(path, "r") as file:
            content = _tree(file, "node", budget)
    except ValueError as error:
        raise ValueError(f"{path} is no NIR graph: {error}") from None
    except Exception as error:  # h5py raises nearly anything for a damaged file
        raise ValueError(f"{path} is no NIR graph, or damaged: {error}") from error
    try:
        return _graph(content)
    except ValueError as error:
        raise ValueError(f"{path} is no NIR graph: {error}") from None


def _tree(parent: Any, name: str, budget: int, depth: int = 0) -> Any:
    """A group as a dictionary, a data set as its value."""
    place = f"{parent.name.rstrip('/')}/{name}"
    if depth > DEEPEST:
        raise ValueError(f"{place!r} nests too deep")
    item = parent[name] if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
    if isinstance(item, h5py.Group):
        return {str(key): _tree(item, str(key), budget, depth + 1) for key in item}
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{place!r} must be a group or a data set in the file itself")  # noqa: TRY004 - of the file
    if math.prod(item.shape or ()) * item.dtype.itemsize > budget:
        raise ValueError(f"{place!r} claims to be of shape {list(item.shape)}, more than the file can hold")
    try:
        value = item[()]
    except Exception as error:
        raise ValueError(f"{place!r} cannot be read: {error}") from error
    return value.decode() if isinstance(value, bytes) else value


def _graph(content: Any) -> nir.NIRGraph:
    nodes, edges = (content.get(key) if isinstance(content, Mapping) else None for key in ("nodes", "edges"))
    if not isinstance(nodes, Mapping) or edges is None:
        raise ValueError("its '/node' must hold the groups 'nodes' and 'edges'")
    try:
        pairs: list[Any] = [tuple(end.decode() if isinstance(end, bytes) else end for end in edge) for edge in edges]
    except TypeError:
        raise ValueError("its '/node/edges' must be pairs of names") from None
    metadata = content.get("metadata")
    return nir.NIRGraph(
        {name: _node(name, node) for name, node in nodes.items()},
        pairs,
        metadata if isinstance(metadata, dict) else {},
        type_check=False,  # from_nir checks shapes itself, those of grouped convolutions and oblong kernels too
    )


def _node(name: str, values: Any) -> nir.NIRNode:
    kind = values.get("type") if isinstance(values, Mapping) else None
    known = getattr(nir, kind, None) if isinstance(kind, str) else None
    if not (isinstance(known, type) and issubclass(known, nir.NIRNode)):
        raise ValueError(f"node {name!r} has type {short(kind)}, which NIR does not have")  # noqa: TRY004 - of the file
    try:
        return nir.dict2NIRNode(dict(values))
    except Exception as error:  # nir raises nearly anything for a field that is missing, superfluous or wrong
        names = ", ".join(field.name for field in fields(known) if field.name not in ("input_type", "output_type"))
        raise ValueError(
            f"node {name!r} ({kind}) cannot be built: {type(error).__name__}: {error}; its fields are {names}"
        ) from error
