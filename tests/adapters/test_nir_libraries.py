"""What snnTorch and Norse make of our graphs through their own readers, and we of theirs."""

from functools import partial

import nir
import numpy as np
import pytest
import torch
from nir_networks import FRAMES, NETWORKS, OverTime, digits, hard, over_time, trained_networks, watch
from nir_readers import run_norse, run_snntorch
from torch import nn

import tracegrad as tg

LIBRARIES = {"snnTorch": run_snntorch, "Norse": run_norse}


@pytest.fixture
def images():
    return digits()[1][0]


@pytest.fixture
def trained():
    return trained_networks()


READ = [*(("snnTorch", name) for name in NETWORKS), ("Norse", "convolutional"), ("Norse", "identity shortcuts")]


@pytest.mark.parametrize(("library", "name"), READ)
def test_other_libraries_fire_the_same_spikes_on_all_test_images(library, name, trained, images):
    network, graph = trained[name]
    outputs, spikes, distance = watch(network, over_time(images))
    theirs, their_spikes = LIBRARIES[library](graph, over_time(images))
    # Where a membrane comes within float32's rounding of the threshold, the order of a sum decides.
    clear = distance > 3e-6
    assert clear.sum() >= 0.95 * len(images)
    assert spikes.keys() == their_spikes.keys()
    for layer, fired in spikes.items():
        assert fired.mean() > 0.02, f"{layer} hardly fires: the comparison says nothing"
        assert torch.equal(their_spikes[layer][:, clear], fired[:, clear]), layer
    torch.testing.assert_close(theirs[:, clear], outputs[:, clear])


def test_the_trained_networks_have_learned(trained, images):
    labels = digits()[1][1]
    for name, (network, _) in trained.items():
        accuracy = (network(over_time(images)).mean(0).argmax(1) == labels).float().mean()
        assert accuracy > 0.5, f"{name}: {accuracy:.2f}"


def test_norse_runs_layers_depth_first_and_loses_a_convolution_on_a_shortcut(trained, images):
    network, graph = trained["resnet"]
    _, spikes, _ = watch(network, over_time(images))
    theirs, their_spikes = run_norse(graph, over_time(images))
    first, joined = "stages_0_0_neuron1", "stages_0_0_neuron2"
    assert torch.equal(their_spikes[first], spikes[first])  # up to there it reads the same equations
    assert not torch.equal(their_spikes[joined][0], spikes[joined][0])
    assert theirs.shape[2:] == (8, 8, 8)  # the current of the shortcut, its last layer, in place of the outputs
    # What it makes of the first step: the shortcut's current is not there yet.
    without = graph.edges.copy()
    without.remove(("stages.0.0.shortcut", "stages.0.0.neuron2"))
    without.remove(("neuron", "stages.0.0.shortcut"))
    nodes = {key: node for key, node in graph.nodes.items() if key != "stages.0.0.shortcut"}
    shorter = tg.adapters.nir.from_nir(nir.NIRGraph(nodes, without))
    assert torch.equal(watch(shorter, over_time(images))[1][joined][0], their_spikes[joined][0])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_threshold_met_exactly_fires_here_alone(library):
    one = nn.Linear(1, 1, bias=False)
    nn.init.ones_(one.weight)
    model = nn.Sequential(one, hard(leak=0.5, threshold=0.5))
    graph = tg.adapters.nir.to_nir(model, torch.zeros(1, 1, 1))
    current = torch.tensor([[[0.5]], [[0.0]], [[0.75]]])  # then the membrane left over adds a quarter of a half
    assert model(current).flatten().tolist() == [1, 0, 1]
    assert LIBRARIES[library](graph, current)[0].flatten().tolist() == [0, 0, 1]


def test_snntorch_reads_if_neurons_as_leaky_ones_with_a_soft_reset(images):
    model = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3)), tg.IF(threshold=0.7, reset="hard"))
    graph = tg.adapters.nir.to_nir(model, FRAMES)
    assert isinstance(graph.nodes["1"], nir.IF)
    frames = over_time(images)
    spikes = model(frames)
    assert torch.equal(run_norse(graph, frames)[0], spikes)
    theirs = run_snntorch(graph, frames)[1]["1"]
    assert not torch.equal(theirs, spikes)
    leaky = nn.Sequential(model[0], tg.LIF(leak=0.9, threshold=0.7, reset="soft"))
    assert (theirs != leaky(frames)).float().mean() < 1e-4  # but for rounding at the threshold
    # And it returns a pair, which no layer after it takes.
    deeper = tg.adapters.nir.to_nir(nn.Sequential(*model, OverTime(nn.Conv2d(4, 2, 3))), FRAMES)
    with pytest.raises(TypeError, match=r"conv2d\(\) received an invalid combination of arguments.*tuple"):
        run_snntorch(deeper, frames)


@pytest.mark.parametrize("library", LIBRARIES)
def test_both_libraries_reset_to_zero_whatever_the_graph_says(library, images):
    conv = OverTime(nn.Conv2d(1, 4, 3))
    graph = tg.adapters.nir.to_nir(nn.Sequential(conv, hard(rest=-0.4)), FRAMES)
    assert np.allclose(graph.nodes["1"].v_reset, -0.4 * 0.1)
    frames = over_time(images)
    theirs = LIBRARIES[library](graph, frames)[0]
    assert not torch.equal(theirs, nn.Sequential(conv, hard(rest=-0.4))(frames))
    assert (theirs != nn.Sequential(conv, hard())(frames)).float().mean() < 1e-4


def test_norse_must_be_given_the_time_step_of_the_graph(images):
    model = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3)), hard())
    frames = over_time(images)
    spikes = model(frames)
    its_own = 1e-3
    slow = tg.adapters.nir.to_nir(model, FRAMES)
    assert not torch.equal(run_norse(slow, frames, its_own)[0], spikes)
    assert (run_norse(tg.adapters.nir.to_nir(model, FRAMES, dt=its_own), frames, its_own)[0] != spikes).sum() == 0


def test_norse_reads_thresholds_per_channel_and_snntorch_does_not(images):
    thresholds = torch.tensor([0.3, 0.5, 0.7, 1.1])
    network = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3)), hard(threshold=thresholds))
    graph = tg.adapters.nir.to_nir(network, FRAMES)
    assert torch.equal(run_norse(graph, over_time(images))[0], network(over_time(images)))
    with pytest.raises(AssertionError, match="v_threshold must be same for all neurons"):
        run_snntorch(graph, over_time(images))


def test_averages_before_neurons_are_a_node_that_norse_cannot_read(images):
    model = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3, padding=1)), OverTime(nn.AvgPool2d(2)), hard())
    graph = tg.adapters.nir.to_nir(model, FRAMES)
    assert isinstance(graph.nodes["1.layer"], nir.AvgPool2d)
    frames = over_time(images)
    assert torch.equal(tg.adapters.nir.from_nir(graph)(frames), model(frames))
    assert torch.equal(run_snntorch(graph, frames)[0], model(frames))
    try:  # it leaves the node out, and what follows has no input; which layers then run differs from call to call
        theirs = run_norse(graph, frames)[0]
    except (RuntimeError, ValueError, KeyError):
        return
    assert theirs.shape != model(frames).shape


@pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning")
def test_what_snntorch_writes_is_read(images):
    import snntorch
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(3)
    vectors = over_time(images.flatten(1))
    leaky = partial(snntorch.Leaky, init_hidden=True, reset_mechanism="zero", reset_delay=False)
    layers = [(leaky(torch.full((size,), 0.8), threshold=torch.full((size,), 0.7)), size) for size in (30, 5)]
    network = nn.Sequential(nn.Linear(64, 30), layers[0][0], nn.Linear(30, 5), layers[1][0])
    read = tg.adapters.nir.from_nir(export_to_nir(network, vectors[0, :1], ignore_dims=[0]))
    theirs = torch.stack([network(frame) for frame in vectors])
    assert theirs.mean() > 0.02
    assert (read(vectors) != theirs).float().mean() < 1e-4
