"""What NIR cannot say, and what of NIR ours cannot do."""

from functools import partial

import nir
import numpy as np
import pytest
import torch
from nir_networks import FRAMES, OverTime, hard
from torch import nn

import tracegrad as tg


class Calls(nn.Module):
    """Something that a model does with the spikes of its first layers."""

    def __init__(self, then, neuron=hard):
        super().__init__()
        self.conv, self.neuron, self.then = OverTime(nn.Conv2d(1, 4, 3, padding=1)), neuron(), then

    def forward(self, x):
        return self.then(self.neuron(self.conv(x)))


class First(nn.Sequential):
    def forward(self, x):
        return super().forward(x)[0]


def _write_in_place(spikes):
    spikes[0] = 0
    return spikes


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
        (Calls(First(nn.Sequential(nn.Flatten(2), nn.LSTM(256, 4)))), r"'then.0.1' \(LSTM\) has no node in NIR"),
        (Calls(lambda spikes: torch.cat([spikes, spikes], 2)), "cannot say what the model does with 'cat'"),
        (Calls(_write_in_place), "cannot say what the model does with '__setitem__' after 'neuron'"),
        (Calls(OverTime(nn.AdaptiveAvgPool2d(3))), "'then.layer' .* windows of several sizes"),
        (
            Calls(lambda spikes: spikes.mean(0)),
            r"averages only over height and width, not over 0 of \[4, 1, 4, 8, 8\]",
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
        (lif((1, 2, 2), tau=[[1e-3, 2e-3]] * 2), "has a tau that differs within a channel"),
        (lif(r=-1.0), "has r -1; it must be positive"),
        (lif((1, 2, 2), v_threshold=[[0.1, 0.2]] * 2), "has a v_threshold that differs within a channel"),
        (lif((2, 2), v_threshold=[[0.1, 0.2], [0.2, 0.1]]), "has a v_threshold that differs within a channel"),
        (lif((2, 2), v_threshold=[[0.1, 0.1], [0.2, 0.2]]), "has a v_threshold that differs within a channel"),
        (nir.Threshold(np.ones(2)), r"node 'n' \(Threshold\) has no layer in tracegrad"),
    ],
)
def test_what_ours_cannot_do_is_refused_by_name(node, message):
    graph = nir.NIRGraph.from_list(node)
    graph.nodes = {"n" if name not in ("input", "output") else name: each for name, each in graph.nodes.items()}
    graph.edges = [("input", "n"), ("n", "output")]
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
