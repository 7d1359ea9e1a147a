"""Malformed graphs and files, one by one: the error says where, and what would be right."""

import copy

import h5py
import nir
import numpy as np
import pytest
import torch
from nir_graphs import FILES, GRAPHS
from torch import nn

import tracegrad as tg


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
