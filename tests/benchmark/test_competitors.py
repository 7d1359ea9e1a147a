from dataclasses import replace

import pytest
import torch
import tracegrad_benchmark.competitors
from tracegrad_benchmark.competitors import competitors, convolutions, missing, norse, snntorch, spikingjelly
from tracegrad_benchmark.competitors.tracegrad import network
from tracegrad_benchmark.workload import LEAK, THRESHOLD, NetworkWork, Workload

from tracegrad.snn.neurons import LIF

NETWORKS = [each for each in competitors() if each.library != convolutions.LIBRARY]


def _id(competitor):
    return competitor.name


def test_names_tell_competitors_apart():
    names = [each.name for each in competitors()]
    assert len(set(names)) == len(names)
    assert {"tracegrad, bf16", "tracegrad, per_step, bf16", "SpikingJelly, float32"} < set(names)


@pytest.mark.parametrize("competitor", NETWORKS, ids=_id)
def test_every_network_has_the_sizes_of_ours(competitor, tiny):
    work = competitor.build(tiny)
    ours = sorted(tuple(parameter.shape) for parameter in network(tiny).parameters())
    assert sorted(tuple(parameter.shape) for parameter in work.network.parameters()) == ours
    with torch.no_grad():
        assert work.network(work.images).shape == (3, 2, 10)


@pytest.mark.parametrize("competitor", NETWORKS, ids=_id)
def test_a_step_trains_every_weight_and_state_does_not_carry_over(competitor, tiny):
    work = competitor.build(tiny)
    assert isinstance(work, NetworkWork)
    before = [parameter.detach().clone() for parameter in work.network.parameters()]
    work.step()
    changed = [not torch.equal(old, new) for old, new in zip(before, work.network.parameters(), strict=True)]
    assert sum(changed) > 0.7 * len(changed)  # of so small a network, some neurons never fire
    work.network.eval()
    with torch.no_grad():
        assert torch.equal(work.network(work.images), work.network(work.images))
    work.infer()


def test_work_of_a_name_is_the_same_in_every_build(tiny):
    first, second = (NETWORKS[0].build(tiny).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_channels_last_is_that_of_weights_and_images(tiny):
    by_name = {each.name: each for each in NETWORKS}
    for name, layout in {
        "SpikingJelly, bf16": torch.contiguous_format,
        "SpikingJelly, channels-last, bf16": torch.channels_last,
        "tracegrad, bf16": torch.channels_last,
    }.items():
        work = by_name[name].build(tiny)
        tensors = [work.images, *(each for each in work.network.parameters() if each.dim() == 4)]
        assert all(tensor.is_contiguous(memory_format=layout) for tensor in tensors)


class _Stepped(torch.nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, currents):
        return torch.stack([self.neuron(current) for current in currents])


@pytest.mark.parametrize(
    ("library", "neuron", "gradients"),
    [
        ("SpikingJelly", spikingjelly.lif, True),
        ("snnTorch", lambda: _Stepped(snntorch.lif()), True),
        ("Norse", lambda: _Stepped(norse.Neuron()), False),  # it has no boxcar
    ],
)
def test_neurons_of_the_libraries_fire_as_ours(library, neuron, gradients):
    torch.manual_seed(0)
    # Not so large that a membrane stays above its threshold after a reset: there snnTorch resets once more.
    values = torch.empty(8, 2, 500, dtype=torch.float64).uniform_(-0.4, 0.54)
    weights = torch.randn_like(values)
    results = []
    for each in (LIF(LEAK, THRESHOLD), neuron()):
        currents = values.clone().requires_grad_()
        spikes = each(currents)
        (spikes * weights).sum().backward()
        results.append((spikes.detach().double(), currents.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert 0.05 < ours.mean() < 0.5
    assert torch.equal(theirs, ours), f"{library} fires otherwise"
    if gradients:
        torch.testing.assert_close(their_gradient, our_gradient, rtol=1e-5, atol=1e-5)


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(tracegrad_benchmark.competitors, "PEERS", ("spikingjelly", "nosuchlibrary"))
    assert missing() == ["nosuchlibrary"]
    libraries = {each.library for each in competitors()}
    assert libraries == {"tracegrad", "SpikingJelly", "ReLU network", "convolutions alone"}


def test_workloads_name_what_is_wrong():
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        Workload(width=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds no CUDA GPU"):
            Workload(device="cuda")


@pytest.mark.parametrize("competitor", [each for each in NETWORKS if "bf16" in each.name], ids=_id)
def test_thresholds_are_set_for_a_firing_rate(competitor, tiny):
    work = competitor.build(replace(tiny, rate=0.1))
    rates = work.rates(training=True)
    if competitor.library == "ReLU network":
        assert rates == work.rates(training=False) == []
        return
    assert len(rates) == len(competitor.build(tiny).rates(training=True)) > 3
    assert sum(rates) / len(rates) == pytest.approx(0.1, abs=0.02)
    inferring = work.rates(training=False)
    assert sum(inferring) / len(inferring) == pytest.approx(0.1, abs=0.05), "inference fires as training does"


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\), not 1.5"):
        Workload(rate=1.5)
    with pytest.raises(ValueError, match=r"every entry of blocks must be at least 1, not \(0, 1\)"):
        Workload(blocks=(0, 1))
