"""Convolutions of signals, tensors in graphs, and trained neurons."""

import warnings

import nir
import numpy as np
import pytest
import torch
from nir_networks import FRAMES, OverTime, digits, hard, watch
from nir_readers import run_norse, run_snntorch, run_spikingjelly
from torch import nn

import tracegrad as tg
from tracegrad.adapters.nir.units import node_of


@pytest.fixture
def signals():
    """The rows of the digits as channels, over four steps: [T, B, 8, 8]."""
    return digits()[1][0][:, 0].expand(4, -1, -1, -1)


def convolutional(**flatten):
    """Layers on signals; the first norm follows a convolution without a bias."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OverTime(nn.Sequential(nn.Conv1d(8, 12, 3, padding=1, bias=False), nn.BatchNorm1d(12))),
        hard(threshold=0.3),
        OverTime(nn.Conv1d(12, 6, 4, stride=2, padding=1, dilation=1)),
        hard(threshold=0.3),
        nn.Flatten(2),
        nn.Linear(24, 10),
    )
    network[0].layer[1].running_var.fill_(0.3)
    return network.eval()


def test_networks_on_signals_come_back(signals, tmp_path):
    network = convolutional()
    graph = tg.adapters.nir.to_nir(network, signals[:, :1])
    assert [type(node).__name__ for node in graph.nodes.values()] == [
        *("Input", "Conv1d", "LIF", "Conv1d", "LIF", "Flatten", "Affine", "Output")
    ]
    assert graph.nodes["input"].input_type["input"].tolist() == [8, 8]
    nir.write(tmp_path / "network.nir", graph)
    for read in (tg.adapters.nir.from_nir(graph), tg.adapters.nir.from_nir(tmp_path / "network.nir")):
        outputs, spikes, distance = watch(network, signals)
        again, our_spikes, _ = watch(read, signals)
        assert all(fired.mean() > 0.05 for fired in spikes.values())
        clear = distance > 3e-6  # elsewhere the rounding of a folded norm decides
        assert clear.float().mean() > 0.9
        assert all(torch.equal(our_spikes[layer][:, clear], fired[:, clear]) for layer, fired in spikes.items())
        torch.testing.assert_close(again[:, clear], outputs[:, clear])


def test_signals_without_time_are_told_from_frames(signals):
    network = nn.Sequential(nn.Conv1d(8, 4, 3), nn.Flatten(1), nn.Linear(24, 2))
    graph = tg.adapters.nir.to_nir(network, signals[0])
    assert torch.equal(tg.adapters.nir.from_nir(graph)(signals)[0], network(signals[0]))
    with pytest.raises(ValueError, match=r"a batch dimension before the 2 of a sample; it is of shape \[8, 8\]"):
        tg.adapters.nir.to_nir(network, signals[0, 0])


@pytest.mark.parametrize("run", [run_snntorch, run_spikingjelly])
def test_other_libraries_fire_the_same_spikes_on_signals(run, signals):
    network = convolutional()
    graph = tg.adapters.nir.to_nir(network, signals[:, :1])
    outputs, spikes, distance = watch(network, signals)
    theirs, their_spikes = run(graph, signals)
    clear = distance > 3e-6
    assert spikes.keys() == their_spikes.keys()
    assert all(torch.equal(their_spikes[layer][:, clear], fired[:, clear]) for layer, fired in spikes.items())
    torch.testing.assert_close(theirs[:, clear], outputs[:, clear])


def test_norse_cannot_read_convolutions_of_signals(signals):
    graph = tg.adapters.nir.to_nir(convolutional(), signals[:, :1])
    with pytest.raises((RuntimeError, ValueError, KeyError, TypeError)):
        run_norse(graph, signals)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv1d(8, 8, 3, groups=2), r"'0' \(Conv1d\) has groups=2"),
        (nn.Conv1d(8, 8, 3, padding_mode="reflect", padding=1), r"'0' \(Conv1d\) has padding_mode 'reflect'"),
        (nn.Sequential(nn.Conv1d(8, 8, 3), nn.AvgPool1d(2)), r"'0.1' \(AvgPool1d\) has no node in NIR"),
        (nn.Sequential(nn.Conv1d(8, 8, 3), nn.Linear(6, 2)), r"'0.1' \(Linear\) reads samples of shape \[8, 6\]"),
    ],
)
def test_what_nir_cannot_say_of_signals_is_refused_by_name(layer, message, signals):
    with pytest.raises(ValueError, match=message):
        tg.adapters.nir.to_nir(nn.Sequential(layer), signals[0])


@pytest.mark.parametrize(("channels", "length"), [(3, 6), (6, 3), (4, 4)])
def test_values_per_channel_of_signals_stay_with_their_channel(channels, length):
    """A neuron takes as many values as its last dimension has for that dimension's, else for the channels'."""
    torch.manual_seed(0)
    frames = torch.randn(4, 5, channels, length)
    for values in {channels, length}:
        neuron = hard(threshold=torch.linspace(0.2, 0.8, values))
        graph = tg.adapters.nir.to_nir(nn.Sequential(OverTime(nn.Conv1d(channels, channels, 1)), neuron), frames)
        neurons = nir.NIRGraph.from_list(graph.nodes["1"])
        assert torch.equal(tg.adapters.nir.from_nir(neurons)(frames), neuron(frames))


def norse_graph():
    """A network of Norse and its graph, whose fields are tensors, as Norse leaves it in memory."""
    import norse.torch

    torch.manual_seed(1)
    layers = [nn.Linear(6, 20), norse.torch.LIFBoxCell(), nn.Linear(20, 4), norse.torch.LIFBoxCell()]
    network = norse.torch.SequentialState(*layers)
    with torch.no_grad():
        network[0].weight.mul_(60)
        network[2].weight.mul_(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old functions of PyTorch and NIRTorch that it calls
        graph = norse.torch.to_nir(network, torch.zeros(2, 6), dt=1.0)  # times tau, so 1 gives seconds
    return network, graph


def test_a_graph_of_norse_in_memory_is_read():
    network, graph = norse_graph()
    assert isinstance(graph.nodes["1"].tau, torch.Tensor)
    read = tg.adapters.nir.from_nir(graph, dt=1e-3)  # the time step of Norse's cells
    frames = torch.rand(12, 2, 6)
    theirs, state = [], None
    for frame in frames:
        outputs, state = network(frame, state)
        theirs.append(outputs)
    theirs = torch.stack(theirs)
    assert 0.05 < theirs.mean() < 0.95
    assert torch.equal(read(frames), theirs)


def test_parameters_and_half_precision_in_a_graph_are_read():
    weight = nn.Parameter(torch.randn(3, 2))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        graph = nir.NIRGraph.from_list(nir.Affine(weight.to(dtype), np.zeros(3)))
        read = tg.adapters.nir.from_nir(graph).get_parameter("affine.weight")
        assert torch.equal(read, weight.to(dtype).to(read.dtype))


def test_whole_numbers_and_other_byte_orders_are_weights():
    for dtype in (np.int8, np.int32, np.uint8, ">f4", ">i2", bool):
        weight = np.array([[0, 1], [2, 3], [4, 5]]).astype(dtype)
        read = tg.adapters.nir.from_nir(nir.NIRGraph.from_list(nir.Linear(weight)))
        outputs = read(torch.eye(2, dtype=next(read.parameters()).dtype)[None])
        assert np.array_equal(outputs[0].detach().numpy(), weight.T.astype(float))


def test_weights_of_several_precisions_get_the_highest():
    nodes = [nir.Linear(np.ones((3, 2), np.float32)), nir.Linear(np.full((1, 3), 1 / 3))]
    read = tg.adapters.nir.from_nir(nir.NIRGraph.from_list(*nodes))
    assert read(torch.ones(1, 1, 2, dtype=torch.float64)).item() == 2


def test_convolutions_that_the_package_nir_cannot_measure_are_read():
    """It takes groups and oblong kernels for others, so their graphs are made without its check of shapes."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 1), groups=2)
    node = nir.Conv2d(None, conv.weight, 1, 0, 1, 2, conv.bias)
    ends = {"input": nir.Input(np.array([4, 5, 5])), "output": nir.Output(np.array([6, 3, 5]))}
    graph = nir.NIRGraph({**ends, "c": node}, [("input", "c"), ("c", "output")], type_check=False)
    images = torch.randn(3, 4, 5, 5)
    assert torch.equal(tg.adapters.nir.from_nir(graph)(images[None])[0], conv(images))


def test_norms_and_weights_in_bfloat16_are_written():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).bfloat16()
    node = tg.adapters.nir.to_nir(network, FRAMES[0].bfloat16()).nodes["0"]
    assert node.weight.dtype == np.float32
    expected = network[0].weight.detach().double() / (1 + 1e-5) ** 0.5
    np.testing.assert_allclose(node.weight, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["leak", "threshold", "rest"])
@pytest.mark.parametrize("kind", [nn.Parameter, nn.Parameter.detach])
def test_one_trained_value_is_written(name, kind):
    neuron = hard(leak=0.8, threshold=0.5, rest=-0.1)
    before = tg.adapters.nir.to_nir(nn.Sequential(nn.Linear(2, 3), neuron), torch.zeros(1, 1, 2)).nodes["1"]
    value = kind(nn.Parameter(torch.tensor(getattr(neuron, name), dtype=torch.float64)))
    delattr(neuron, name)
    setattr(neuron, name, value)
    after = tg.adapters.nir.to_nir(nn.Sequential(nn.Linear(2, 3), neuron), torch.zeros(1, 1, 2)).nodes["1"]
    for field, expected in before.to_dict().items():
        assert np.array_equal(getattr(after, field, expected), expected), field


def with_values(neuron, **values):
    """Neurons with values that only some constructors take."""
    for name, value in values.items():
        delattr(neuron, name)
        setattr(neuron, name, value)
    return neuron


def test_trained_values_per_channel_are_written():
    leak = nn.Parameter(torch.tensor([0.5, 0.8, -0.1]))
    neuron = with_values(hard(threshold=torch.tensor([1.0, 2.0, 3.0])), leak=leak, rest=torch.tensor([0.0, 0.1, 0.2]))
    node = node_of(neuron, (3, 6, 6), 1e-4)
    gain = 1 - leak.detach().double().clamp(0, 1).numpy()  # a leak that has left [0, 1] counts as the nearest bound
    ones = np.ones((3, 6, 6))
    np.testing.assert_allclose(node.tau, 1e-4 / gain[:, None, None] * ones)
    np.testing.assert_allclose(node.v_threshold, (gain * [1, 2, 3])[:, None, None] * ones)
    np.testing.assert_allclose(node.v_reset, (gain * [0, 0.1, 0.2])[:, None, None] * ones, rtol=1e-6)


def test_a_leak_of_one_in_some_channels_is_refused():
    neuron = with_values(hard(), leak=nn.Parameter(torch.tensor([0.5, 1.0, 0.3])))
    with pytest.raises(ValueError, match="has a leak of 1 in some channels only"):
        node_of(neuron, (3, 6, 6), 1e-4)
    neuron = with_values(hard(), leak=nn.Parameter(torch.tensor([1.0, 1.5])))
    assert isinstance(node_of(neuron, (2,), 1e-4), nir.IF)


def test_leaks_and_rests_per_channel_come_back():
    torch.manual_seed(0)
    neuron = hard(leak=torch.tensor([0.2, 0.5, 0.9]), threshold=0.4, rest=torch.tensor([0.0, -0.2, 0.1]))
    network = nn.Sequential(OverTime(nn.Conv2d(1, 3, 3)), neuron)
    frames = digits()[1][0].expand(4, -1, -1, -1, -1)
    read = tg.adapters.nir.from_nir(tg.adapters.nir.to_nir(network, frames[:, :1]))
    np.testing.assert_allclose(read.get_submodule("1").leak, neuron.leak, rtol=1e-6)
    np.testing.assert_allclose(read.get_submodule("1").rest, neuron.rest, atol=1e-7)
    assert torch.equal(read(frames), network(frames))
