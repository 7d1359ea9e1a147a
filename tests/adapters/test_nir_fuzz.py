"""Graphs and files with random damage: the only error is a ValueError."""

import contextlib
import copy

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nir_graphs import FILES, GRAPHS

import tracegrad as tg

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
KINDS = st.sampled_from(sorted(GRAPHS))


def read(graph, sample):
    """Reads what may be malformed: the only error is a ValueError, and a network that comes of it runs."""
    try:
        network = tg.adapters.nir.from_nir(graph)
    except ValueError as error:
        return str(error)
    network(torch.zeros(2, 1, *sample, dtype=next(network.parameters()).dtype))
    return None


VALUES = st.sampled_from(
    [
        None,
        0,
        -1,
        2,
        2**40,
        0.5,
        float("nan"),
        float("inf"),
        1e300,
        -1e-300,
        "same",
        "no number",
        b"\xff",
        True,
        [],
        {},
        (1, 2, 3),
        np.zeros(0),
        np.zeros((0, 3)),
        np.ones(3),
        np.ones((2, 2), int),
        np.full((3, 2, 3), np.nan),
        np.full((2, 1, 3, 3), np.inf, np.float32),
        np.ones((1, 1, 1, 1, 1)),
        np.array(["a", "b"]),
        np.array([1j, 2]),
        np.array(1e-320),
        np.array([[1, 2], [3, 4]], dtype=object),
        torch.ones(3, requires_grad=True),
        torch.tensor(float("nan")),
        [[1], [2, 3]],
        np.array([2**63], np.uint64),
    ]
)


EDGES = st.sampled_from(
    [
        [],
        None,
        "edges",
        [("input", "output")],
        [("input",)],
        [("input", "0.layer"), ("input", "0.layer")],
        [("nowhere", "output")],
        [("output", "input")],
        [(1, 2)],
        ["ab", "cd"],
        np.array([[b"input", b"output"]]),
    ]
)


@FUZZ
@given(st.data(), KINDS)
def test_changed_fields_of_a_graph(data, kind):
    original, sample = GRAPHS[kind]
    graph = copy.deepcopy(original)
    for _ in range(data.draw(st.integers(1, 2))):
        node = graph.nodes[data.draw(st.sampled_from(sorted(graph.nodes)))]
        field = data.draw(st.sampled_from(sorted(vars(original.nodes["1"]) | vars(node))))
        if data.draw(st.integers(0, 3)):
            setattr(node, field, data.draw(VALUES))
        elif field in vars(node):
            delattr(node, field)
    read(graph, sample)


@FUZZ
@given(st.data(), KINDS)
def test_changed_nodes_and_edges_of_a_graph(data, kind):
    original, sample = GRAPHS[kind]
    graph = copy.deepcopy(original)
    names = st.sampled_from(sorted(graph.nodes))
    change = data.draw(st.sampled_from(["remove", "swap", "rename", "kind", "edges", "edge", "no edge", "more edges"]))
    if change == "remove":
        del graph.nodes[data.draw(names)]
    elif change == "swap":
        one, other = data.draw(names), data.draw(names)
        graph.nodes[one], graph.nodes[other] = graph.nodes[other], graph.nodes[one]
    elif change == "rename":
        new = data.draw(st.sampled_from(["", ".", "a.", "forward", "0.layer.weight", "0", "_sources", "1", 5]))
        old = data.draw(names)
        graph.nodes[new] = graph.nodes.pop(old)
        graph.edges = [tuple(new if end == old else end for end in edge) for edge in graph.edges]
    elif change == "kind":
        graph.nodes[data.draw(names)] = data.draw(VALUES | st.sampled_from([nir.Threshold(np.ones(2)), original]))
    elif change == "edges":
        graph.edges = data.draw(EDGES)
    elif change == "no edge":
        graph.edges.pop(data.draw(st.integers(0, len(graph.edges) - 1)))
    else:
        added = [(data.draw(names), data.draw(names)) for _ in range(1 if change == "edge" else 5)]
        graph.edges = [*graph.edges, *added]
    read(graph, sample)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("nir") / "network.nir"


@FUZZ
@given(st.data(), KINDS)
def test_changed_content_of_a_file(path, data, kind):
    path.write_bytes(FILES[kind])
    with h5py.File(path, "r+") as file:
        places = []
        file.visit(places.append)
        for _ in range(data.draw(st.integers(1, 2))):
            place = data.draw(st.sampled_from(sorted(places)))
            if place not in file:
                continue
            change = data.draw(st.sampled_from(["remove", "group", "link", "circle", "more", *["value"] * 3]))
            if change != "more":
                del file[place]
            if change == "group":
                file.create_group(place)
            elif change == "link":
                file[place] = h5py.ExternalLink("/etc/hostname", "/")
            elif change == "circle" and place != "node":
                file[place] = file["node"]
            elif change in ("more", "value"):
                value = data.draw(VALUES)
                with contextlib.suppress(Exception):  # HDF5 has no such value
                    file[f"{place}_more" if change == "more" else place] = value
    read(path, GRAPHS[kind][1])


@FUZZ
@given(st.data(), KINDS)
def test_changed_bytes_of_a_file(path, data, kind):
    content = bytearray(FILES[kind])
    heap = content.index(b"GCOL")  # damage to this heap of strings can keep the HDF5 library itself busy for ever
    for _ in range(data.draw(st.sampled_from([1, 4, 32]))):
        place = data.draw(st.integers(0, len(content) - 1))
        if not heap <= place < heap + 4096:
            content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.integers(0, 9)) == 0:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    read(path, GRAPHS[kind][1])
