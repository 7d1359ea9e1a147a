"""What is peculiar to sinabs: spike counts, recurrent layers, converted networks, states of other batches."""

from copy import deepcopy
from functools import partial

import pytest
import sinabs
import tape
import torch
from contract.cases import Case, every_time
from contract.libraries.sinabs import MultiSpike, Sinabs, SinabsSqueeze, SingleSpike
from contract.truth import truth
from sinabs.activation import MaxSpike
from sinabs.from_torch import from_model
from sinabs.layers import ALIF, IAF, LIF, ALIFRecurrent, ExpLeak, IAFRecurrent, IAFSqueeze, LIFRecurrent, Repeat
from torch import Tensor, nn

import reference
import tracegrad as tg
from reference import assert_near, assert_same


def test_spike_counts_enter_the_traces_as_they_are() -> None:
    """The contract compares gradients and relations; here it is made sure that there are counts."""
    for library in (Sinabs(), SinabsSqueeze()):
        for neuron in ("LIF", "IAF"):
            case = Case(library, neuron, "at-once", "residual")
            spikes = truth(case, case.build(), case.frames()).spikes
            assert all(x.max() > 1 for x in spikes.values()), f"{case}: no layer may fire at most once a step"


class OwnSpikes(Sinabs):
    """Layers with the library's own spike functions, which fire in float32."""

    neurons = {
        "IAF": IAF,
        "IAF-capped": partial(IAF, spike_fn=MaxSpike(2)),
        "LIF": partial(LIF, 2.0, spike_threshold=torch.tensor(0.5)),
        "ALIF": partial(ALIF, 2.0, 3.0, spike_threshold=torch.tensor(0.5)),
    }


@pytest.mark.parametrize("neuron", OwnSpikes.neurons)
@pytest.mark.parametrize("network", ["convolutional", "residual"])
def test_the_librarys_own_spike_functions(neuron: str, network: str) -> None:
    case = Case(OwnSpikes(), neuron, "at-once", network)
    model, x = case.build(), case.frames()
    expected = truth(case, model, x)
    assert all(spikes.any() for spikes in expected.spikes.values()), "the case is void: a layer does not fire"
    case.attach(model)
    assert_same(case.gradients(model, x), expected.gradients, 1e-5)


# Recurrent layers, which pass their spikes through `rec_connect` to their next step


class Recurrent(nn.Module):
    """[B, T, 5] -> [B, T, 4], around a recurrent layer; for the reference its plain twin in a loop."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        plain, recurrent, options = RECURRENT[kind]
        options = options | {"spike_threshold": torch.tensor(0.5)}
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        self.neuron0 = recurrent(rec_connect=nn.Linear(6, 6), **options)
        self.neuron1 = IAF(spike_fn=SingleSpike, spike_threshold=torch.tensor(0.5))
        self.plain = partial(plain, **options)

    def begin(self) -> None:
        self.neuron0.reset_states()
        self.neuron1.reset_states()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron1(self.second(self.neuron0(self.first(x))))

    def stepwise(self, tape: tape.Tape, x: Tensor) -> Tensor:
        """On [T, B, 5]. In the first step nothing comes back, not even the bias of `rec_connect`."""
        plain0, plain1 = self.plain().double(), deepcopy(self.neuron1)
        for name, parameter in self.neuron0.named_parameters(recurse=False):
            plain0._parameters[name] = parameter
        plain1.reset_states()
        spikes, outputs = x.new_zeros(x.shape[1], 6), []
        for step, frame in enumerate(x):
            back = tape.step(self.neuron0.rec_connect, spikes) * (step > 0)
            spikes = plain0((tape.step(self.first, frame) + back).unsqueeze(1)).squeeze(1)
            tape.fired(self.neuron0, spikes[None], [self.first, self.neuron0.rec_connect])
            outputs.append(plain1(tape.step(self.second, spikes).unsqueeze(1)).squeeze(1))
            tape.fired(self.neuron1, outputs[-1][None], [self.second])
        return torch.stack(outputs)


RECURRENT = {
    "IAF": (IAF, IAFRecurrent, {"spike_fn": MultiSpike}),
    "LIF": (LIF, LIFRecurrent, {"spike_fn": SingleSpike, "tau_mem": 2.0, "norm_input": False}),
    "ALIF": (ALIF, ALIFRecurrent, {"spike_fn": SingleSpike, "tau_mem": 2.0, "tau_adapt": 3.0, "norm_input": False}),
}


def recurrent(kind: str) -> tuple[Recurrent, Tensor]:
    torch.manual_seed(0)
    model = Recurrent(kind).double()
    nn.init.normal_(model.neuron0.rec_connect.weight)
    return model, (torch.rand(6, 3, 5, dtype=torch.float64) < 0.5).double()


@pytest.mark.parametrize("kind", RECURRENT)
@every_time
def test_recurrent_layers(kind: str, time: str) -> None:
    """The synapse before them pairs; `rec_connect` is listed: each of its calls drives the step that comes after it."""
    model, x = recurrent(kind)
    reference.loss_of(model(x.transpose(0, 1)).transpose(0, 1)).backward()
    untouched = model.neuron0.rec_connect.weight.grad.clone()
    model.zero_grad()
    model.begin()
    expected = tape.run(model, (x,), time=time)
    assert expected.rates["neuron0"] > 0.05
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    gradients["neuron0.rec_connect.weight"] = untouched
    model.begin()
    attachment = tg.attach(model, x[:3, :1].transpose(0, 1), spiking_input=True, time=time, alpha=0.5)
    assert sorted(attachment.pairs) == [pair for pair in expected.pairs if "rec_connect" not in pair[0]]
    assert "neuron0.rec_connect" in dict(attachment.skipped)
    for _ in range(2):
        model.zero_grad()
        model.begin()
        reference.loss_of(model(x.transpose(0, 1)).transpose(0, 1)).backward()
        for name, gradient in gradients.items():
            assert_near(model.get_parameter(name).grad, gradient, 1e-10, name)


def test_a_recurrent_layer_that_reset_states_has_passed_over_is_an_error() -> None:
    """`sinabs.reset_states(model)` resets no layer that holds others."""
    model, x = recurrent("LIF")
    x = x.transpose(0, 1)
    tg.attach(model, x, spiking_input=True)
    model(x).sum().backward()
    sinabs.reset_states(model)
    with pytest.raises(RuntimeError, match=r"neuron neuron0 goes on with .* call its reset_states\(\)"):
        model(x)


# Layouts and states


def test_a_network_as_its_users_write_it() -> None:
    """Batch first, convolutions in Repeat; what integrates and does not fire is no neuron."""
    model = nn.Sequential(
        *(Repeat(nn.Conv2d(1, 4, 3)), IAF(), Repeat(nn.AvgPool2d(2)), nn.Flatten(2), nn.Linear(36, 8), LIF(2.0)),
        *(nn.Linear(8, 3), ExpLeak(2.0)),
    )
    attachment = tg.attach(model, torch.rand(2, 5, 1, 8, 8))
    assert attachment.pairs == [("4", "5")]
    reasons = dict(attachment.skipped)
    assert "its input is the data" in reasons["0.module"]
    assert "no post-synaptic neuron" in reasons["6"]


@pytest.mark.parametrize("held", [{"batch_size": 2}, {"num_timesteps": 5}], ids=["batch", "steps"])
def test_a_converted_network(held: dict) -> None:
    """`from_model` makes folded layers, [B * T, ...], of ReLUs; with an `input_shape` it leaves states behind."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten())
    ann = nn.Sequential(*layers, nn.Linear(6, 3), nn.ReLU())
    for parameter in ann.parameters():
        parameter.data.abs_()  # so that all layers fire
    model = from_model(ann, input_shape=(1, 8, 8), **held).spiking_model
    assert isinstance(model[1], IAFSqueeze)
    sinabs.reset_states(model)
    x = torch.rand(2, 5, 1, 8, 8)
    attachment = tg.attach(model, x.flatten(0, 1), record=True, time="mean")
    assert attachment.pairs == [("3", "4"), ("6", "7")]
    spikes: list[Tensor] = []
    for place in (5, 7):
        model[place].register_forward_hook(lambda _, __, out: spikes.append(out.unflatten(0, (2, 5)).transpose(0, 1)))
    model(x.flatten(0, 1)).sum().backward()
    pre, post = (reference.spike_trace(each.detach().double()) for each in spikes)
    raw = sum(reference.correlate(pre[step], post[step], model[6]) for step in range(5))
    assert raw.min() < 0.9 * raw.max(), "the case is void: all of R is the same"
    assert_near(attachment.relations["6"].double(), reference.normalise(raw, "max"), 1e-6, "R_hat")
