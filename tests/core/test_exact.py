"""Every gradient of an attached network against the reference, float64.

The reference (tests/reference.py) shares no code with the package: loops over steps and kernel positions.
"""

from copy import deepcopy

import pytest
import torch
from networks import CASES, DYNAMICS, SOFT, B, Case, Single, T
from torch import Tensor, nn

import reference
import tracegrad as tg
from reference import assert_gradients, assert_near, gradients

TIMES = ("per_step", "mean", "final")
NORMALISATIONS = ("max", "mean", "neuron", "none", *reference.RATE_FREE)
ACROSS = ("conv2d-strided", "conv1d-grouped-strided-dilated", "linear-tokens", "residual", "fork", "max-pool")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
some_cases = pytest.mark.parametrize("case", [CASES[name] for name in ACROSS], ids=ACROSS)
every_time = pytest.mark.parametrize("time", TIMES)
every_normalisation = pytest.mark.parametrize("normalize", NORMALISATIONS)
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS)


def network(case: Case, dynamics: dict = SOFT) -> nn.Module:
    return case.network(lambda: tg.LIF(**dynamics))


def attached(model: nn.Module, x: Tensor, case: Case, **method):
    return tg.attach(model, x, spiking_input=not case.real, **method)


# Weight gradients


@every_case
@every_time
@every_dynamics
def test_gradients(case: Case, time: str, dynamics: dict) -> None:
    model, x = network(case, dynamics), case.input()
    truth = reference.run(model, x, **dynamics, time=time)
    attached(model, x, case, time=time)
    assert_gradients(model, x, truth)


@some_cases
@every_time
@every_normalisation
def test_gradients_with_every_normalisation(case: Case, time: str, normalize: str) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, normalize=normalize)
    attached(model, x, case, time=time, normalize=normalize)
    assert_gradients(model, x, truth)


@some_cases
@every_time
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_gradients_with_other_alphas(case: Case, time: str, alpha: float) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, alpha=alpha)
    attached(model, x, case, time=time, alpha=alpha)
    assert_gradients(model, x, truth)


@some_cases
@every_time
@pytest.mark.parametrize("steps", [1, 7])
def test_gradients_with_other_numbers_of_steps(case: Case, time: str, steps: int) -> None:
    model = network(case)
    truth = reference.run(model, case.input(steps), time=time)
    attached(model, case.input(), case, time=time)  # attached with T of them
    assert_gradients(model, case.input(steps), truth)


OF_SPIKES = ("causal", "anticausal", "stdp", "coincidence")


@pytest.mark.parametrize("case", [CASES["linear-tokens"], CASES["residual"]], ids=["linear-tokens", "residual"])
@every_time
@every_normalisation
@pytest.mark.parametrize("relation", OF_SPIKES)
def test_relations_of_spikes(case: Case, time: str, normalize: str, relation: str) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, normalize=normalize, relation=relation)
    attached(model, x, case, time=time, normalize=normalize, relation=relation)
    assert_gradients(model, x, truth)


@some_cases
@every_time
@pytest.mark.parametrize("normalize", ["max", "lift"])
@pytest.mark.parametrize("scaling", ["exponential", "norm_preserving"])
def test_gradients_with_other_scalings(case: Case, time: str, scaling: str, normalize: str) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, normalize=normalize, scaling=scaling, alpha=0.5)
    attached(model, x, case, time=time, normalize=normalize, scaling=scaling, alpha=0.5)
    assert_gradients(model, x, truth)


@some_cases
@every_time
@pytest.mark.parametrize("normalize", ["max", "neuron", "cosine"])
def test_gradients_with_inverted_relations(case: Case, time: str, normalize: str) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, normalize=normalize, inverted=True, alpha=0.5)
    attachment = attached(model, x, case, time=time, normalize=normalize, inverted=True, alpha=0.5, record=True)
    assert_gradients(model, x, truth)
    for name, relation in attachment.relations.items():
        assert_near(relation, truth.relations[name], 1e-10, f"relation of {name}")
        assert 0 <= relation.min() <= relation.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "centered"}, "needs R_hat in .* must be one of 'cosine', 'max', 'neuron', not 'centered'"),
        ({"normalize": "lift"}, "not 'lift'"),
        ({"normalize": "mean"}, "not 'mean'"),
        ({"normalize": "none"}, "not 'none'"),
        ({"relation": "stdp"}, "relation='stdp' has a negative term"),
    ],
    ids=str,
)
def test_what_has_no_inverse_is_refused(options: dict[str, str], message: str) -> None:
    case = CASES["linear"]
    with pytest.raises(ValueError, match=message):
        attached(network(case), case.input(), case, inverted=True, **options)


@every_time
def test_relation_of_the_pre_synaptic_end_with_itself(time: str) -> None:
    case = CASES["conv2d"]
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, relation="pre_pre")
    attached(model, x, case, time=time, relation="pre_pre")
    assert_gradients(model, x, truth)


@some_cases
@every_time
def test_gradients_in_evaluation_mode(case: Case, time: str) -> None:
    model, x = network(case).eval(), case.input()
    truth = reference.run(model, x, time=time)
    attached(model, x, case, time=time)
    assert_gradients(model, x, truth)


# What must stay as it was


@every_case
@every_time
def test_every_other_gradient_is_the_baseline(case: Case, time: str) -> None:
    model, x = network(case), case.input()
    plain, plain_input = gradients(deepcopy(model), x)
    attachment = attached(model, x, case, time=time)
    ours, ours_input = gradients(model, x)
    scaled = {f"{synapse}.weight" for synapse, _ in attachment.pairs}
    for name in ours.keys() - scaled:
        assert_near(ours[name], plain[name], 1e-12, name)
    assert_near(ours_input, plain_input, 1e-12, "the input's gradient")


@every_case
@every_time
@every_dynamics
def test_alpha_zero_is_the_baseline(case: Case, time: str, dynamics: dict) -> None:
    model, x = network(case, dynamics), case.input()
    plain, plain_input = gradients(deepcopy(model), x)
    attached(model, x, case, alpha=0.0, time=time)
    ours, ours_input = gradients(model, x)
    for name in plain:
        assert_near(ours[name], plain[name], 1e-12, name)
    assert_near(ours_input, plain_input, 1e-12, "the input's gradient")


@every_case
@every_time
def test_spikes_and_outputs_are_unchanged_to_the_bit(case: Case, time: str) -> None:
    def watch(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        seen, handles = {}, []
        for name, module in model.named_modules():
            if isinstance(module, tg.LIF):
                keep = lambda _module, _args, spikes, name=name: seen.update({name: spikes.detach().clone()})  # noqa: E731
                handles.append(module.register_forward_hook(keep))
        seen["output"] = model(x).detach().clone()
        for handle in handles:
            handle.remove()
        return seen

    model, x = network(case), case.input()
    untouched = deepcopy(model)
    before = watch(untouched, x)
    attached(model, x, case, time=time)
    after = watch(model, x)
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), f"{name} differs in {(before[name] != after[name]).sum()} places"
    for (name, ours), theirs in zip(model.named_buffers(), untouched.buffers(), strict=True):
        assert torch.equal(ours, theirs), f"buffer {name} differs"


@every_case
def test_spikes_are_those_of_the_equations(case: Case) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x)
    with torch.no_grad():
        assert torch.allclose(model(x), truth.output, rtol=0, atol=1e-12)


# What is paired and recorded


@every_case
def test_pairs_are_exactly_those_of_the_equations(case: Case) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x)
    attachment = attached(model, x, case)
    assert sorted(attachment.pairs) == truth.pairs
    synapses = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)}
    assert {name for name, _ in attachment.skipped} == synapses - truth.relations.keys()


@some_cases
@every_time
@every_normalisation
def test_recorded_relations(case: Case, time: str, normalize: str) -> None:
    model, x = network(case), case.input()
    truth = reference.run(model, x, time=time, normalize=normalize)
    attachment = attached(model, x, case, time=time, normalize=normalize, record=True)
    gradients(model, x)
    assert attachment.relations.keys() == truth.relations.keys()
    for name, relation in attachment.relations.items():
        assert_near(relation, truth.relations[name], 1e-10, f"relation of {name}")


# Silence


def weak(case: Case, size: float) -> nn.Module:
    """A single synapse so weak that its neuron stays under the threshold, yet inside the surrogate's window."""
    model = network(case)
    with torch.no_grad():
        model.synapse.weight.mul_(size)
        model.synapse.bias.zero_()
    return model


@every_time
@every_normalisation
@pytest.mark.parametrize("name", ["conv2d-strided", "conv1d", "linear-tokens"])
def test_a_network_that_never_fires_keeps_one_minus_alpha_of_its_gradient(name: str, time: str, normalize: str) -> None:
    case = CASES[name]
    model, x = weak(case, 0.01), case.input()
    plain, _ = gradients(deepcopy(model), x)
    attachment = attached(model, x, case, time=time, normalize=normalize, record=True)
    assert not model(x).any()
    ours, _ = gradients(model, x)
    assert plain["synapse.weight"].any()
    assert_near(ours["synapse.weight"], 0.9 * plain["synapse.weight"], 1e-12, "weight")
    assert not attachment.relations["synapse"].any()


@every_time
@every_normalisation
def test_a_deep_network_that_never_fires_has_finite_gradients(time: str, normalize: str) -> None:
    case, silent = CASES["residual"], SOFT | {"threshold": 1e3}
    model, x = network(case, silent), torch.zeros_like(case.input())
    truth = reference.run(model, x, **silent, time=time, normalize=normalize)
    attached(model, case.input(), case, time=time, normalize=normalize)
    ours, _ = gradients(model, x)
    for name, gradient in ours.items():
        assert gradient.isfinite().all(), name
        assert_near(gradient, truth.gradients[name], 1e-10, name)


@every_time
@every_normalisation
def test_neurons_that_are_silent_at_the_first_step(time: str, normalize: str) -> None:
    x = torch.ones(T, B, 5, dtype=torch.float64)
    model = Single(lambda: tg.LIF(**SOFT), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model.synapse.weight.copy_(torch.tensor([0.08, 0.06, 0.05])[:, None] + 0.001 * torch.arange(5))
        model.synapse.bias.zero_()
    truth = reference.run(model, x, time=time, normalize=normalize)
    assert not truth.spikes["neuron"][0].any()
    assert truth.spikes["neuron"][1].any()
    tg.attach(model, x, time=time, normalize=normalize, spiking_input=True)
    assert_gradients(model, x, truth)


@every_time
@every_normalisation
def test_one_silent_output_channel(time: str, normalize: str) -> None:
    case = CASES["conv2d"]
    model, x = network(case), case.input()
    with torch.no_grad():
        model.synapse.weight[0] *= 0.01
        model.synapse.bias[0] = 0.0
    truth = reference.run(model, x, time=time, normalize=normalize)
    assert not truth.relations["synapse"][..., 0, :, :, :].any()
    assert truth.gradients["synapse.weight"][0].any()
    attached(model, x, case, time=time, normalize=normalize)
    assert_gradients(model, x, truth)
