"""The relation inside the sum, and every control, against the reference, float64: at once, step by step, recurrent."""

from copy import deepcopy

import pytest
import torch
from networks import CASES, SOFT, Case
from spiking import Stateful
from stepping import AllSteps, frames, gradients, loop
from torch import Tensor, nn

import reference
import tracegrad as tg
from reference import assert_gradients, assert_near, assert_same

TIMES = ("per_step", "mean", "final")
ACROSS = ("conv2d-strided", "conv1d-grouped-strided-dilated", "linear-tokens", "residual", "fork")
SIGNALS, RATES = ("counts", "other_image"), ("pre_rate", "post_rate", "rank_one")

some_cases = pytest.mark.parametrize("case", [CASES[name] for name in ACROSS], ids=ACROSS)
every_time = pytest.mark.parametrize("time", TIMES)
by_events = pytest.mark.parametrize("events", [True, False], ids=["by events", "dense"])
of_signals = pytest.mark.parametrize("control", SIGNALS)
every_control = pytest.mark.parametrize("control", [*SIGNALS, *RATES])


def network(case: Case) -> nn.Module:
    return case.network(lambda: tg.LIF(**SOFT))


def assert_like_the_reference(case: Case, events: bool = False, bound: float = 1e-10, **options) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, alpha=0.5, **options)
    attached = tg.attach(model, x, spiking_input=not case.real, events=events, alpha=0.5, record=True, **options)
    assert_gradients(model, x, truth, bound)
    for name, relation in truth.relations.items():
        assert_near(attached.relations[name], relation, bound, f"relation of {name}")


@some_cases
@every_time
@every_control
@by_events
def test_controls(case: Case, time: str, control: str, events: bool) -> None:
    assert_like_the_reference(case, events, time=time, control=control)


@pytest.mark.parametrize("case", [CASES["conv2d-strided"], CASES["linear-tokens"]], ids=["conv", "linear"])
@every_time
@of_signals
@pytest.mark.parametrize("relation", ["causal", "anticausal", "stdp", "coincidence"])
@pytest.mark.parametrize("normalize", ["max", "none", *reference.RATE_FREE])
def test_controls_of_signals_serve_every_relation(
    case: Case, time: str, control: str, relation: str, normalize: str
) -> None:
    if (relation, control) == ("stdp", "counts"):
        pytest.skip("refused")
    assert_like_the_reference(case, time=time, control=control, relation=relation, normalize=normalize)


@every_time
@pytest.mark.parametrize("control", RATES)
@pytest.mark.parametrize("options", [{"relation": "stdp"}, {"normalize": "neuron"}, {"normalize": "mean"}], ids=str)
def test_controls_of_rates_serve_other_relations(time: str, control: str, options: dict[str, str]) -> None:
    assert_like_the_reference(CASES["conv2d-strided"], time=time, control=control, **options)


@some_cases
@by_events
@pytest.mark.parametrize("relation", ["positive", "causal", "anticausal", "coincidence"])
def test_the_relation_inside_the_sum(case: Case, events: bool, relation: str) -> None:
    assert_like_the_reference(case, events, apply="event", relation=relation)


@some_cases
@of_signals
def test_controls_of_the_relation_inside_the_sum(case: Case, control: str) -> None:
    assert_like_the_reference(case, apply="event", control=control)


def test_the_relation_inside_the_sum_of_the_pre_synaptic_end_with_itself() -> None:
    assert_like_the_reference(CASES["conv2d"], apply="event", relation="pre_pre")


def test_recorded_factors_of_events_have_mean_1() -> None:
    """Weighted by the number of events of each weight; for a linear layer."""
    case = CASES["linear"]
    model, x = network(case), case.input()
    attached = tg.attach(model, x, spiking_input=True, apply="event", record=True)
    reference.gradients(model, x)
    factors = attached.relations["synapse"]
    assert factors.shape == (len(x), *model.synapse.weight.shape)
    events = x.sum(1)[:, None].expand_as(factors)
    torch.testing.assert_close((factors * events).sum() / events.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"apply": "event"}, *({"control": each} for each in (*SIGNALS, *RATES))], ids=str)
def test_alpha_zero_is_the_baseline(options: dict[str, str]) -> None:
    case = CASES["residual"]
    model, x = network(case), case.input()
    plain, _ = reference.gradients(deepcopy(model), x)
    tg.attach(model, x, spiking_input=True, alpha=0.0, **options)
    ours, _ = reference.gradients(model, x)
    assert_same(ours, plain, 1e-12)


@pytest.mark.parametrize("options", [{"apply": "event"}, *({"control": each} for each in (*SIGNALS, *RATES))], ids=str)
def test_silence_has_finite_gradients(options: dict[str, str]) -> None:
    case, silent = CASES["residual"], SOFT | {"threshold": 1e3}
    model, x = case.network(lambda: tg.LIF(**silent)), torch.zeros_like(case.input())
    truth = reference.run(model, x, **silent, **options)
    tg.attach(model, case.input(), spiking_input=True, **options)
    ours, _ = reference.gradients(model, x)
    for name, gradient in ours.items():
        assert gradient.isfinite().all(), name
        assert_near(gradient, truth.gradients[name], 1e-10, name)


# Step by step

INSIDE = [{"apply": "event", "relation": "causal"}, {"apply": "event", "control": "counts"}]
RULES = [{"time": time, "control": each} for time in TIMES for each in (*SIGNALS, *RATES, "shuffle")] + INSIDE


@pytest.mark.parametrize("options", RULES, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_steps_one_by_one_give_what_all_at_once_give(options: dict[str, str], masked: bool) -> None:
    if masked and options.get("control") == "other_image":
        pytest.skip("refused")
    model, twin = loop(), AllSteps().double()
    twin.load_state_dict(model.layers.state_dict())
    rule = {"normalize": "mean", "alpha": 0.5, "record": True, **options}
    if "apply" in options:
        del rule["normalize"]
    stepping, at_once = tg.attach(model, frames(steps=2), **rule), tg.attach(twin, frames(), **rule)
    if options.get("control") == "shuffle":  # names of synapses go into the seed
        for name, synapse in stepping._installation.synapses.items():
            synapse.memory.synapse = name.removeprefix("layers.")
    for seed in (1, 2):
        x = frames(seed, steps=6)
        mask = torch.ones(6, x.shape[1], dtype=torch.bool)
        if masked:
            mask[4:, 0] = False
            mask[2, 1] = False
        with stepping.mask(mask) if masked else at_once.mask(mask[:1, 0].expand(x.shape[1])):
            ours = gradients(model, x)
        with at_once.mask(mask) if masked else stepping.mask(mask[:1, 0].expand(x.shape[1])):
            theirs = gradients(twin, x)
        assert_same(ours, theirs, 1e-9)
    for name, relation in at_once.relations.items():
        assert_near(stepping.relations[f"layers.{name}"], relation, 1e-9, name)


# Recurrent


class Recurrent(nn.Module):
    """One neuron that gets the data's spikes, and its own of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.rec, self.lif = nn.Linear(5, 4), nn.Linear(4, 4, bias=False), Stateful()

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        s, fired = x.new_zeros(x.shape[1], 4), []
        for frame in x:
            s = self.lif(self.inp(frame) + self.rec(s))
            fired.append(s)
        return torch.stack(fired)


def of_recurrent(model: Recurrent, x: Tensor, options: dict[str, str]) -> dict[str, Tensor]:
    """The scaled gradients of its weights: each step's current, its gradient, and the spikes at its ends, by hand."""
    model.lif.reset()
    s, before, currents, fired = x.new_zeros(x.shape[1], 4), [], {"inp": [], "rec": []}, []
    for frame in x:
        before.append(s.detach())
        each = {"inp": model.inp(frame), "rec": model.rec(s)}
        for name, current in each.items():
            currents[name].append(current)
        s = model.lif(each["inp"] + each["rec"])
        fired.append(s)
    loss = reference.loss_of(torch.stack(fired))
    found = {}
    for name, pre in (("inp", x), ("rec", torch.stack(before))):
        d = torch.autograd.grad(loss, currents[name], retain_graph=True)
        synapse = model.get_submodule(name)
        steps = [torch.einsum("no,ni->oi", d_t, x_t) for d_t, x_t in zip(d, pre, strict=True)]
        call = reference.Call(steps, pre, {model.lif: torch.stack(fired).detach()})
        relation, control = options.get("relation", "positive"), options.get("control")
        if options.get("apply") == "event":
            found[name] = 0.5 * sum(steps) + 0.5 * call.event_gradient(synapse, relation, d, control)
            continue
        time = options["time"]
        raw = reference._over_time(call.relations(synapse, relation, control), time)
        hats = [
            reference.normalise(reference.rank_one(each, 1) if control == "rank_one" else each, "max") for each in raw
        ]
        if control in ("pre_rate", "post_rate"):
            hats = [reference.rates(hat, 1, control) for hat in hats]
        parts = steps if time == "per_step" else [sum(steps)]
        found[name] = sum(reference.scale(g, hat, 0.5) for g, hat in zip(parts, hats, strict=True))
    return found


OF_RECURRENT = [{"time": time, "control": each} for time in TIMES for each in (None, *SIGNALS, *RATES)]
OF_RECURRENT += [{"time": time, "relation": each} for time in TIMES for each in ("causal", "stdp", "coincidence")]


@pytest.mark.parametrize("options", [*OF_RECURRENT, *INSIDE], ids=str)
def test_recurrent_synapses(options: dict[str, str]) -> None:
    torch.manual_seed(0)
    model, x = Recurrent().double(), (torch.rand(5, 3, 5) < 0.5).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 2
    truth = of_recurrent(model, x, options)
    attached = tg.attach(model, x, spiking_input=True, alpha=0.5, **options)
    assert len(attached.pairs) == 2
    reference.loss_of(model(x)).backward()
    for name, gradient in truth.items():
        assert_near(model.get_submodule(name).weight.grad, gradient, 1e-10, name)
