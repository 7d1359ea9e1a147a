import subprocess
import sys
from functools import partial
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from nir_networks import FRAMES, NETWORKS, OverTime, digits, hard, over_time, plain, resnet, trained_networks, watch
from torch import nn

import tracegrad as tg


@pytest.fixture
def images():
    return digits()[1][0]


@pytest.fixture
def trained():
    return trained_networks()


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


def test_trained_values_per_channel_are_written():
    leak = nn.Parameter(torch.tensor([0.5, 0.75]))
    model = nn.Sequential(OverTime(nn.Conv2d(1, 2, 3)), hard(leak=leak, rest=nn.Parameter(torch.tensor(-0.5))))
    node = tg.adapters.nir.to_nir(model, FRAMES).nodes["1"]
    assert node.tau[:, 0, 0].tolist() == [1e-4 / 0.5, 1e-4 / 0.25]
    assert node.v_reset[:, 0, 0].tolist() == [-0.25, -0.125]


def test_a_layer_that_is_used_twice_is_two_nodes(images):
    torch.manual_seed(4)
    conv, neuron = OverTime(nn.Conv2d(1, 1, 3, padding="same")), hard()
    model = nn.Sequential(conv, neuron, conv, neuron)
    graph = tg.adapters.nir.to_nir(model, FRAMES)
    assert list(graph.nodes) == ["input", "0.layer", "1", "0.layer_1", "1_1", "output"]
    assert torch.equal(tg.adapters.nir.from_nir(graph)(over_time(images)), model(over_time(images)))


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
