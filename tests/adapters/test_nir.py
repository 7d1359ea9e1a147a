import subprocess
import sys
from functools import partial
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from nir_networks import NETWORKS, OverTime, digits, hard, over_time, plain, resnet, train, watch
from nir_readers import run_norse, run_snntorch
from torch import nn

import tracegrad as tg

LIBRARIES = {"snnTorch": run_snntorch, "Norse": run_norse}
FRAMES = torch.zeros(4, 1, 1, 8, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By name: a network trained on the digits, and the graph that comes back from its file."""
    torch.manual_seed(0)
    networks = {}
    for name, build in NETWORKS.items():
        network = train(build())
        path = tmp_path_factory.mktemp("graphs") / "network.nir"
        nir.write(path, tg.adapters.nir.to_nir(network, FRAMES))
        networks[name] = network, nir.read(path)
    return networks


@pytest.fixture(scope="module")
def images():
    return digits()[1][0]


READ = [*(("snnTorch", name) for name in NETWORKS), ("Norse", "convolutional"), ("Norse", "identity shortcuts")]


@pytest.mark.parametrize(("library", "name"), READ)
def test_other_libraries_fire_the_same_spikes_on_all_test_images(library, name, trained, images):
    network, graph = trained[name]
    outputs, spikes, distance = watch(network, over_time(images))
    theirs, their_spikes = LIBRARIES[library](graph, over_time(images))
    # Where a membrane comes within float32's rounding of the threshold, the order of a sum decides.
    clear = distance > 1e-5
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


@pytest.mark.parametrize("name", NETWORKS)
def test_our_own_reader_fires_the_same_spikes(name, trained, images):
    network, graph = trained[name]
    # In float64 no rounding of folded weights decides; those in the file are float32.
    read = tg.adapters.nir.from_nir(tg.adapters.nir.to_nir(network.double(), FRAMES.double()))
    outputs, spikes, _ = watch(network, over_time(images).double())
    again, our_spikes, _ = watch(read, over_time(images).double())
    network.float()
    torch.testing.assert_close(again, outputs, rtol=0, atol=1e-12)
    assert spikes.keys() == our_spikes.keys()
    assert all(torch.equal(our_spikes[layer], spikes[layer]) for layer in spikes)
    # And once folded, nothing changes any more.
    twice = tg.adapters.nir.to_nir(tg.adapters.nir.from_nir(graph), FRAMES)
    assert twice.edges == graph.edges
    for key, node in graph.nodes.items():
        for field, value in node.to_dict().items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, twice.nodes[key].to_dict()[field]), (key, field)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leak", [0.0, 0.3, 0.9, 1.0])
def test_a_round_trip_keeps_weights_to_the_bit_and_outputs(dtype, leak, images, tmp_path):
    torch.manual_seed(1)
    make = partial(hard, leak=leak, threshold=0.7, rest=-0.1, surrogate="arctan", detach_reset=True)
    network = plain(make).to(dtype)
    nir.write(tmp_path / "network.nir", tg.adapters.nir.to_nir(network, FRAMES.to(dtype)))
    read = tg.adapters.nir.from_nir(tmp_path / "network.nir", surrogate="arctan", detach_reset=True)
    assert {k: v.dtype for k, v in read.state_dict().items()} == {k: v.dtype for k, v in network.state_dict().items()}
    assert all(torch.equal(read.state_dict()[key], value) for key, value in network.state_dict().items())
    neuron = read.get_submodule("1")
    assert (neuron.leak, neuron.threshold, neuron.rest) == (leak, 0.7, -0.1)
    assert (neuron.surrogate, neuron.detach_reset) == ("arctan", True)
    frames = over_time(images).to(dtype)
    assert torch.equal(read(frames), network(frames))


def test_thresholds_per_channel_come_back(images):
    thresholds = torch.tensor([0.3, 0.5, 0.7, 1.1])
    network = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3)), hard(threshold=nn.Parameter(thresholds)))
    graph = tg.adapters.nir.to_nir(network, FRAMES)
    read = tg.adapters.nir.from_nir(graph)
    assert torch.equal(read.get_submodule("1").threshold.float(), thresholds)
    assert torch.equal(read(over_time(images)), network(over_time(images)))
    assert torch.equal(run_norse(graph, over_time(images))[0], network(over_time(images)))
    with pytest.raises(AssertionError, match="v_threshold must be same for all neurons"):
        run_snntorch(graph, over_time(images))


def test_a_read_network_trains_with_scaling_as_the_original(images):
    torch.manual_seed(2)
    network = plain().double()
    read = tg.adapters.nir.from_nir(tg.adapters.nir.to_nir(network, FRAMES.double()))
    frames, labels = over_time(images[:16]).double(), digits()[1][1][:16]
    for model in (network, read):
        attachment = tg.attach(model, frames, alpha=0.5)
        assert attachment.pairs == [("2.layer", "3")]
        tg.objectives.mean_cross_entropy(model(frames), labels).backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    for key, parameter in read.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=0, atol=1e-12)


def test_a_read_residual_network_pairs_every_synapse(trained):
    read = tg.adapters.nir.from_nir(trained["resnet"][1])
    pairs = tg.attach(read, over_time(torch.rand(2, 1, 8, 8))).pairs
    assert pairs == tg.attach(resnet(), torch.rand(2, 1, 8, 8)).pairs


def test_the_model_stays_as_it_is_and_may_have_scaling_attached():
    model = resnet().train()
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    graph = tg.adapters.nir.to_nir(model, FRAMES)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    tg.attach(model, FRAMES)
    attached = tg.adapters.nir.to_nir(model, FRAMES)
    assert attached.edges == graph.edges
    assert all(
        np.array_equal(attached.nodes[k].weight, n.weight) for k, n in graph.nodes.items() if hasattr(n, "weight")
    )


# --- where NIR, or a reader, means something else -----------------------------------------------------------------


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


def test_averages_before_neurons_are_a_node_that_norse_cannot_read(images):
    model = nn.Sequential(OverTime(nn.Conv2d(1, 4, 3, padding=1)), OverTime(nn.AvgPool2d(2)), hard())
    graph = tg.adapters.nir.to_nir(model, FRAMES)
    assert isinstance(graph.nodes["1.layer"], nir.AvgPool2d)
    frames = over_time(images)
    assert torch.equal(tg.adapters.nir.from_nir(graph)(frames), model(frames))
    assert torch.equal(run_snntorch(graph, frames)[0], model(frames))
    with pytest.raises(RuntimeError, match="The size of tensor"):
        run_norse(graph, frames)


# --- what is refused ----------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Something that a model does with the spikes of its first layers."""

    def __init__(self, then, neuron=hard):
        super().__init__()
        self.conv, self.neuron, self.then = OverTime(nn.Conv2d(1, 4, 3, padding=1)), neuron(), then

    def forward(self, x):
        return self.then(self.neuron(self.conv(x)))


@tg.register_neuron
class Mine(nn.Module):
    def forward(self, currents):
        return (currents > 1).float()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Calls(nn.Identity(), tg.LIF), r"'neuron' \(LIF\) has a soft reset, and NIR's neurons reset hard"),
        (Calls(nn.Identity(), partial(hard, initial=0.2)), "'neuron' .* has initial=0.2"),
        (Calls(nn.Identity(), partial(hard, height=2.0)), "'neuron' .* has height=2.0"),
        (Calls(nn.Identity(), Mine), r"'neuron' \(Mine\) has no node in NIR"),
        (Calls(nn.ReLU()), r"'then' \(ReLU\) has no node in NIR"),
        (Calls(OverTime(nn.MaxPool2d(2))), r"'then.layer' \(MaxPool2d\) has no node in NIR"),
        (Calls(OverTime(nn.Conv2d(4, 4, 3, groups=2))), "'then.layer' .*groups=2"),
        (Calls(OverTime(nn.Conv2d(4, 4, (3, 1)))), r"'then.layer' .*kernel_size=\(3, 1\)"),
        (Calls(OverTime(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))), "padding_mode 'circular'"),
        (Calls(tg.TDBatchNorm2d(4)), r"'then' \(TDBatchNorm2d\) does not follow a convolution"),
        (Calls(nn.Linear(8, 2)), r"'then' \(Linear\) reads samples of shape \[4, 8, 8\]"),
        (Calls(OverTime(nn.AdaptiveAvgPool2d(3))), "'then.layer' .* windows of several sizes"),
        (
            Calls(lambda spikes: spikes.mean(0)),
            r"averages over height and width alone, not over 0 of \[4, 1, 4, 8, 8\]",
        ),
        (Calls(lambda spikes: 2 * spikes), "cannot say what the model does with '(__rmul__|mul)'"),
        (Calls(lambda spikes: spikes + 1), "adds something else to"),
        (Calls(lambda spikes: spikes + spikes), "adds the output of 'neuron' to itself"),
        (
            Calls(lambda spikes: torch.stack(list(spikes))),
            "cannot say what the model does with 'unbind' after 'neuron'",
        ),
        (Calls(lambda spikes: spikes[:2]), "cannot say how '__getitem__' makes"),
        (Calls(lambda spikes: spikes.transpose(0, 1)), "cannot say what the model does with 'transpose'"),
        (Calls(lambda spikes: (spikes, spikes)), "must return one tensor that its layers computed, not tuple"),
        (tg.models.resnet(10, 1, [1], 4, norm="time_mean", neuron=hard), r"'norm' \(TimeMeanBatchNorm2d\) has no node"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_nir_cannot_say_is_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        tg.adapters.nir.to_nir(model, FRAMES)
    assert not any(module._forward_hooks for module in model.modules())


def lif(shape=(2,), **changes):
    values = {"tau": 1e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.1} | changes
    return nir.LIF(**{key: np.broadcast_to(value, shape).copy() for key, value in values.items()})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (lif(v_leak=0.5), r"node 'n' \(LIF\) has v_leak 0.5; ours leak to 0"),
        (lif(tau=1e-5), "has tau 1e-05, shorter than the time step dt = 0.0001"),
        (lif(tau=[1e-3, 2e-3]), "has tau of several values"),
        (lif(r=-1.0), "has r -1; it must be positive"),
        (lif((1, 2), v_threshold=[[0.1, 0.2]]), "has a v_threshold that differs within a channel"),
        (nir.Threshold(np.ones(2)), r"node 'n' \(Threshold\) has no layer in tracegrad"),
    ],
)
def test_what_ours_cannot_do_is_refused_by_name(node, message):
    graph = nir.NIRGraph.from_list(node)
    graph.nodes = {"n" if name not in ("input", "output") else name: each for name, each in graph.nodes.items()}
    with pytest.raises(ValueError, match=message):
        tg.adapters.nir.from_nir(graph)


def test_graphs_that_are_no_forward_pass_are_refused():
    nodes = {"input": nir.Input(np.array([2])), "a": lif(), "b": nir.Linear(np.ones((2, 2)))}
    ends = nodes | {"output": nir.Output(np.array([2]))}
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("a", "output")]
    with pytest.raises(ValueError, match="recurrence through"):
        tg.adapters.nir.from_nir(nir.NIRGraph(ends, edges))
    two = {"input": nir.Input(np.array([2])), "also": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    with pytest.raises(ValueError, match="must have one Input node, not 2"):
        tg.adapters.nir.from_nir(nir.NIRGraph(two, [("input", "output"), ("also", "output")]))
    one = {"forward": lif(), "input": ends["input"], "output": ends["output"]}
    graph = nir.NIRGraph(one, [("input", "forward"), ("forward", "output")])
    with pytest.raises(ValueError, match="no module can have the name of node 'forward'"):
        tg.adapters.nir.from_nir(graph)


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


# --- the package --------------------------------------------------------------------------------------------------


def test_nothing_foreign_is_imported_until_asked_for():
    _python("import sys, tracegrad; assert not {'nir', 'nirtorch', 'norse', 'snntorch'} & set(sys.modules)")


def test_a_missing_package_is_named_with_the_remedy():
    _python(
        "import sys; sys.modules['nir'] = None\n"
        "import tracegrad as tg\n"
        "try: tg.adapters.nir\n"
        "except ImportError as error: assert 'pip install tracegrad[nir]' in str(error), error\n"
        "else: raise SystemExit('no error')"
    )


def test_unknown_adapters_are_named():
    with pytest.raises(AttributeError, match=r"tracegrad.adapters has no 'onnx'; there are nir"):
        tg.adapters.onnx  # noqa: B018


def _python(code):
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "nir.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/nir.md", "exec"), {})
    assert (tmp_path / "network.nir").is_file()
