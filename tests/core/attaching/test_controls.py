"""The options `control` and `apply`: what goes together, what is drawn at random, what a resumed training needs."""

from copy import deepcopy

import pytest
import torch
from stepping import frames as images
from stepping import loop, reset
from torch import Tensor

import tracegrad as tg
from attaching.models import FORMS, SCALED, AtOnce, attach, build, frames, gradients, scaled_gradients
from reference import assert_differ, assert_same

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def relations(a: tg.Attachment, model: AtOnce) -> dict[str, Tensor]:
    """R_hat of one more backward pass."""
    gradients(model)
    return {name: relation.clone() for name, relation in a.relations.items()}


# shuffle


@every_form
@every_time
def test_shuffle_permutes_within_each_output(form: type[AtOnce], time: str) -> None:
    plain, model = build(form), build(form)
    a, b = attach(plain, time=time, record=True), attach(model, time=time, record=True, control="shuffle")
    expected, first, second = relations(a, plain), relations(b, model), relations(b, model)
    for name, hat in expected.items():
        assert torch.equal(first[name].sort(-1).values, hat.sort(-1).values), "rows hold other values"
        assert not torch.equal(first[name], hat)
        assert not torch.equal(first[name], second[name]), "each backward pass has its own permutation"


@every_form
def test_one_permutation_serves_all_steps(form: type[AtOnce]) -> None:
    tg.register_normalization(f"test-places {form.__name__}")(
        lambda raw: torch.arange(raw.numel(), dtype=raw.dtype).reshape(raw.shape)
    )
    model = build(form)
    a = attach(model, record=True, control="shuffle", normalize=f"test-places {form.__name__}")
    for hat in relations(a, model).values():
        assert all(torch.equal(step, hat[0]) for step in hat)
        ordered = hat[0].sort(-1).values.flatten()
        assert torch.equal(ordered, torch.arange(hat[0].numel()).double())


def test_the_seed_says_which_permutations() -> None:
    def of(seed: int) -> dict[str, Tensor]:
        return scaled_gradients(control="shuffle", control_seed=seed)

    assert_same(of(1), of(1), 0.0)
    assert_differ(of(1), of(2))


def test_random_numbers_of_others_stay_as_they_were() -> None:
    model = build()
    attach(model, control="shuffle")
    state = torch.get_rng_state()
    model(frames()).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


# What a resumed training needs


@every_form
@every_time
@pytest.mark.parametrize("control", ["shuffle", "rank_one"])
def test_a_resumed_training_goes_on_to_the_bit(form: type[AtOnce], time: str, control: str, tmp_path) -> None:
    model = build(form)
    a = attach(model, time=time, control=control)
    for seed in (1, 2, 3):
        gradients(model, frames(seed))
    torch.save(a.state_dict(), tmp_path / "state.pt")
    resumed = build(form)
    b = attach(resumed, time=time, control=control)
    b.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in (4, 5):
        assert_same(gradients(resumed, frames(seed)), gradients(model, frames(seed)), 0.0)


def test_a_state_is_a_copy_of_what_the_control_keeps() -> None:
    model = build()
    a = attach(model, control="rank_one")
    gradients(model)
    state = a.state_dict()
    kept = deepcopy(state)
    gradients(model, frames(7))
    for name in SCALED:
        assert torch.equal(state["control"][name]["vector"], kept["control"][name]["vector"])


@pytest.mark.parametrize("control", [None, "shuffle", "counts"])
def test_the_state_of_another_control_does_not_fit(control: str | None) -> None:
    state = attach(build(), control="rank_one").state_dict()
    if control == "shuffle":
        state["control"].pop("a")
    with pytest.raises(ValueError, match="not the state of an attachment with control="):
        attach(build(), control=control).load_state_dict(state)


def test_a_deep_copy_keeps_its_own() -> None:
    model = build()
    attach(model, control="shuffle")
    gradients(model)
    duplicate = deepcopy(model)
    assert_same(gradients(duplicate), gradients(model), 0.0)


# mean_scale


@every_form
@every_time
def test_mean_scale_multiplies_the_baselines_gradients(form: type[AtOnce], time: str) -> None:
    scales = {"a": 0.93, "b": 0.5}
    plain = scaled_gradients(form, alpha=0.0)
    expected = {name: gradient * scales.get(name.removesuffix(".weight"), 1) for name, gradient in plain.items()}
    found = scaled_gradients(form, time=time, control={"mean_scale": scales})
    assert_same(found, expected, 1e-12)


@pytest.mark.parametrize(
    ("control", "error", "message"),
    [
        ("count", ValueError, "unknown control 'count'; the known ones are 'counts', 'other_image'.*mean_scale"),
        ({"scale": {}}, ValueError, "a control with numbers is {'mean_scale': {synapse: number}}"),
        ({"mean_scale": 0.9}, TypeError, "takes {synapse: number}, not 0.9"),
        ({"mean_scale": {"a": "0.9", "b": 1}}, TypeError, "the mean scale of a must be a number, not '0.9'"),
        ({"mean_scale": {"a": float("inf"), "b": 1}}, ValueError, "the mean scale of a must be finite"),
        ({"mean_scale": {"a": 0.9}}, ValueError, "has no number for b"),
        ({"mean_scale": {"a": 0.9, "b": 1, "head": 1}}, ValueError, "'head' is no synapse that is scaled.*a, b"),
    ],
    ids=str,
)
def test_a_wrong_control_says_what_is_right(control: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attach(build(), control=control)


# What goes together


SENSELESS = [
    ({"apply": "inside"}, "unknown apply 'inside'; the known ones are 'outside', 'event'"),
    ({"apply": "event", "time": "mean"}, "time='mean': each event takes the signals of its own step"),
    ({"apply": "event", "time": "final"}, "time='final': each event"),
    ({"apply": "event", "normalize": "cosine"}, "normalize='cosine': the factors of events are divided by their mean"),
    ({"apply": "event", "scaling": "exponential"}, "scaling='exponential'"),
    ({"apply": "event", "inverted": True}, "inverted=True"),
    ({"apply": "event", "relation_batch": 0.5}, "relation_batch=0.5"),
    ({"apply": "event", "relation": "stdp"}, "relation='stdp': the mean of signed factors may be 0"),
    *(({"apply": "event", "control": each}, "changes R or R_hat") for each in ("pre_rate", "rank_one", "shuffle")),
    ({"apply": "event", "control": {"mean_scale": {"a": 1.0, "b": 1.0}}}, "changes R or R_hat"),
    ({"control": "rank_one", "normalize": "centered"}, "which divides the rates out"),
    ({"control": "rank_one", "normalize": "lift"}, "which divides the rates out"),
    ({"control": "post_rate", "scaling": "norm_preserving"}, "takes back any factor of a whole output"),
    ({"control": "counts", "relation": "stdp"}, "nothing would be left of the relation"),
    ({"control": {"mean_scale": {"a": 1.0, "b": 1.0}}, "inverted": True}, "no R_hat to invert"),
]


@pytest.mark.parametrize(("options", "message"), SENSELESS, ids=str)
def test_what_makes_no_sense_together_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(build(), **options)


@every_form
def test_another_image_needs_two_and_no_mask(form: type[AtOnce]) -> None:
    model = build(form)
    a = attach(model, control="other_image")
    with pytest.raises(ValueError, match="the batch needs two"):
        model(frames()[:, :1]).sum().backward()
    with pytest.raises(ValueError, match="leave the mask out"), a.mask(torch.ones(3, dtype=torch.bool)):
        model(frames())


@pytest.mark.parametrize("control", ["shuffle", "rank_one"])
def test_what_keeps_something_is_not_compiled(control: str) -> None:
    torch._dynamo.reset()
    model = build()
    attach(model, control=control)
    with pytest.raises(Exception, match="needs an eager backward pass"):
        torch.compile(model, backend="eager", fullgraph=True)(frames())


@pytest.mark.parametrize(
    "options", [{"apply": "event"}, *({"control": each} for each in ("counts", "other_image", "pre_rate"))], ids=str
)
def test_the_others_are_compiled(options: dict[str, str]) -> None:
    torch._dynamo.reset()
    model = build()
    attach(model, **options)
    expected = gradients(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(gradients(compiled), expected, 1e-10)
    assert_differ(expected, scaled_gradients())


def test_rank_one_of_a_cosine_keeps_the_sums_of_its_ends() -> None:
    """R is the first part of its decomposition; what it is divided by stays."""
    plain, model = build(), build()
    a = attach(plain, record=True, time="mean", normalize="cosine")
    b = attach(model, record=True, time="mean", normalize="cosine", control="rank_one")
    c = attach(build(), record=True, time="mean", normalize="none")
    gradients(c._installation.model)
    for name, hat in relations(b, model).items():
        raw = c.relations[name]
        u, s, v = torch.linalg.svd(raw)
        first = s[0] * torch.outer(u[:, 0], v[0])
        cosine = relations(a, plain)[name]
        sizes = torch.where(raw > 0, raw / torch.where(cosine > 0, cosine, 1), 0)
        expected = torch.where(sizes > 0, first / torch.where(sizes > 0, sizes, 1), 0).clamp(-1, 1)
        where = raw > 0
        torch.testing.assert_close(hat[where], expected[where])


def test_truncated_back_propagation_needs_the_whole_sequence() -> None:
    """`counts` is of all steps, which no backward pass may cut."""
    model, x = loop().layers, images()
    tg.attach(model, x[0], control="counts")
    reset(model)
    model(x[0]).sum().backward()
    for module in model.modules():
        if getattr(module, "v", None) is not None:
            module.v = module.v.detach()
    with pytest.raises(RuntimeError, match="needs no such control, as control='counts' takes the whole sequence"):
        model(x[1])


def test_the_relation_inside_the_sum_goes_through_truncated_back_propagation() -> None:
    """Its mean factor is that of the steps that await one backward pass."""
    model, x = loop().layers, images(steps=4)
    a = tg.attach(model, x[0], apply="event", record=True)
    reset(model)
    for chunk in (x[:2], x[2:]):
        torch.stack([model(frame) for frame in chunk]).sum().backward()
        assert all(relation.isfinite().all() and len(relation) == 2 for relation in a.relations.values())
        for module in model.modules():
            if getattr(module, "v", None) is not None:
                module.v = module.v.detach()
