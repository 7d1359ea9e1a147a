"""Malformed graphs and files: whatever is wrong, the error is a ValueError that says where."""

import contextlib
import copy

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nir_networks import OverTime, hard
from torch import nn

import tracegrad as tg

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def images():
    """Layers of each kind, on images."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OverTime(nn.Conv2d(1, 2, 3, padding=1)),
        hard(),
        OverTime(nn.AvgPool2d(2)),
        OverTime(nn.Conv2d(2, 2, 2, bias=False)),
        hard(leak=1.0),
        nn.Flatten(2),
        nn.Linear(2, 3),
    )
    return tg.adapters.nir.to_nir(network, torch.zeros(1, 1, 1, 4, 4))


def signals():
    """Layers on signals."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OverTime(nn.Conv1d(2, 3, 3)), hard(threshold=torch.tensor([0.3, 0.4, 0.5])), nn.Flatten(2), nn.Linear(12, 2)
    )
    return tg.adapters.nir.to_nir(network, torch.zeros(1, 1, 2, 6))


GRAPHS = {"images": (images(), (1, 4, 4)), "signals": (signals(), (2, 6))}
FILES = {kind: tg.adapters.nir.to_bytes(graph) for kind, (graph, _) in GRAPHS.items()}
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


def changed(kind, name, **fields):
    graph = copy.deepcopy(GRAPHS[kind][0])
    for field, value in fields.items():
        setattr(graph.nodes[name], field, value)
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            changed("images", "0.layer", weight=np.full((2, 1, 3, 3), np.nan)),
            r"node '0.layer' \(Conv2d\) has weight wi",
        ),
        (
            changed("images", "0.layer", weight=np.ones((2, 1, 3))),
            r"weight of shape \[2, 1, 3\]; it must be \[any, any, a",
        ),
        (changed("images", "0.layer", weight=np.array(["a"])), "has weight array.* it must be an array of numbers"),
        (changed("images", "0.layer", bias=np.ones(3)), r"has bias of shape \[3\]; it must be \[2\]"),
        (changed("images", "0.layer", stride=0), r"has stride \[0\]; it must be one or 2 whole numbers of at least 1"),
        (changed("images", "0.layer", stride=0.5), "has stride .* whole numbers"),
        (changed("images", "0.layer", padding="none"), "'0.layer' .* padding 'none'; it must be 'same', 'va"),
        (changed("images", "0.layer", groups=2), "'0.layer' .*takes 2 channels, and gets the shape"),
        (changed("images", "2.layer", kernel_size=np.array([9, 9])), "'2.layer' .*cannot take the shape"),
        (changed("images", "2.layer", padding=-1), r"has padding \[-1\]; it must be .* of at least 0"),
        (changed("images", "5", start_dim=7), r"node '5' \(Flatten\) cannot take the shape \[2, 1, 1\]"),
        (changed("images", "5", start_dim=-4), "must leave the batch as it is"),
        (changed("images", "6", weight=np.ones((3, 5))), r"node '6' \(Affine\) takes 5 features, and gets the"),
        (
            changed("images", "1", tau=np.nan),
            r"node '1' \(LIF\) has tau with NaN or infinite values; all must be finite",
        ),
        (changed("images", "1", tau=np.zeros(())), "has tau 0, shorter than the time step"),
        (changed("images", "1", tau=np.ones(5)), r"fields of shapes that do not fit each other: .*tau \[5\]"),
        (changed("images", "1", v_threshold=-1), "'1' .* threshold must be positive"),
        (changed("images", "1", v_threshold=None), "has v_threshold None; it must be an array of numbers"),
        (changed("images", "4", r=np.zeros(1)), r"node '4' \(IF\) has r 0; it must be positive"),
        (changed("images", "4", v_threshold=1e200, r=1e-200), "thresholds divided by it are infinite"),
        (changed("images", "input", input_type={"input": None}), r"node 'input' \(Input\) has shape None"),
        (
            changed("images", "input", input_type={"input": [1, 5]}),
            r"node '0.layer' .*takes 3 dimensions, and gets the",
        ),
        (
            changed("images", "output", output_type={"output": [4]}),
            r"'output' .*declares the shape \[4\], and gets \[3\]",
        ),
        (changed("signals", "0.layer", weight=np.ones((3, 4, 3))), "node '0.layer' .*takes 4 channels, and gets"),
        (
            changed("signals", "1", **{k: np.ones(4) for k in ("tau", "r", "v_threshold")}, v_leak=0, v_reset=0),
            "has val",
        ),
    ],
)
def test_the_error_names_the_node_and_the_field(graph, message):
    with pytest.raises(ValueError, match=message):
        tg.adapters.nir.from_nir(graph)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("input", "a"), ("a", "output"), ("b", "output")], "names 'b', which is no node of the graph"),
        ([("input", "a"), ("input", "a"), ("a", "output")], r"\('input', 'a'\) is there twice"),
        ([("input", "a"), ("a", "output"), ("output", "a")], "leads into the input or out of the output"),
        ([("input", "output")], "node 'a' has no edge into it"),
        ([("input", "a")], "node 'output' has no edge into it"),
        ([("input", "a", "output")], "an edge must be a pair of names"),
        (3, "an edge must be a pair of names, not 3"),
    ],
)
def test_edges_that_make_no_network(edges, message):
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    graph = nir.NIRGraph({**ends, "a": nir.Linear(np.eye(2))}, [("input", "a"), ("a", "output")])
    graph.edges = edges
    with pytest.raises(ValueError, match=message):
        tg.adapters.nir.from_nir(graph)


def test_layers_of_different_shapes_are_not_added():
    nodes = {
        "input": nir.Input(np.array([2])),
        "a": nir.Linear(np.ones((3, 2))),
        "b": nir.Linear(np.ones((1, 2))),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    with pytest.raises(ValueError, match=r"node 'output' \(Output\) adds the shapes \[3\] and \[1\], which differ"):
        tg.adapters.nir.from_nir(nir.NIRGraph(nodes, edges, type_check=False))


def write(path, change):
    path.write_bytes(FILES["images"])
    with h5py.File(path, "r+") as file:
        change(file)


def replace(place, value):
    def change(file):
        del file[place]
        if value is not None:
            file[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            replace("node/nodes/1/tau", None),
            r"node '1' \(LIF\) cannot be built: .*'tau'; its fields are .*tau, r, v_l",
        ),
        (replace("node/nodes/1/type", "LIFE"), "node '1' has type 'LIFE', which NIR does not have"),
        (replace("node/nodes/1/type", None), "node '1' has type None"),
        (replace("node/nodes/1/r", np.ones(3)), r"node '1' \(LIF\) cannot be built: .*must have the same shape"),
        (lambda file: file["node/nodes/1"].create_dataset("odd", data=1), "'1' .*unexpected keyword argument 'odd'"),
        (replace("node/nodes/input/shape", None), r"node 'input' \(Input\) cannot be built: KeyError: 'shape'"),
        (replace("node/nodes/6/weight", np.nan), r"node '6' \(Affine\) cannot be built"),
        (replace("node/edges", None), "must hold the groups 'nodes' and 'edges'"),
        (replace("node/edges", 4), "'/node/edges' must be pairs of names"),
        (replace("node/nodes", 4), "must hold the groups 'nodes' and 'edges'"),
        (replace("node", None), "'/node' must be a group or a data set in the file itself"),
        (
            replace("node/nodes/1/tau", h5py.SoftLink("/node")),
            "'/node/nodes/1/tau' must be a group or a data set",
        ),
        (
            lambda file: file["node/nodes/1"].create_dataset("big", (10**6, 10**6), "f8", chunks=(9, 9)),
            r"'/node/nodes/1/big' claims to be of shape \[1000000, 1000000\], more than the file can hold",
        ),
    ],
)
def test_the_error_names_the_file_and_the_place(tmp_path, change, message):
    path = tmp_path / "network.nir"
    write(path, change)
    with pytest.raises(ValueError, match=message) as raised:
        tg.adapters.nir.from_nir(path)
    assert str(path) in str(raised.value)


def test_what_is_no_file_of_a_graph(tmp_path):
    path = tmp_path / "network.nir"
    with pytest.raises(FileNotFoundError):
        tg.adapters.nir.from_nir(path)
    with pytest.raises(IsADirectoryError):
        tg.adapters.nir.from_nir(tmp_path)
    for content in (b"", b"a text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"network.nir is no NIR graph, or damaged: "):
            tg.adapters.nir.from_nir(path)
    write(path, replace("node/nodes/1/type", "long" * 10**6))
    with pytest.raises(ValueError, match="node '1' has type 'longlong") as raised:
        tg.adapters.nir.from_nir(path)
    assert len(str(raised.value)) < 300 + len(str(path))
    with pytest.raises(TypeError, match=r"must be a nir.NIRGraph or the path of a file, not dict"):
        tg.adapters.nir.from_nir({})


@pytest.mark.parametrize("dt", [0, -1e-4, float("nan"), float("inf")])
def test_a_time_step_must_be_positive(dt):
    with pytest.raises(ValueError, match="dt must be a positive number of seconds"):
        tg.adapters.nir.from_nir(GRAPHS["images"][0], dt=dt)
    with pytest.raises(ValueError, match="dt must be a positive number of seconds"):
        tg.adapters.nir.to_nir(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 1, 2), dt=dt)
