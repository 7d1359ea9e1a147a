"""What `diagnose` tells of a network, against gradients of attached networks and controls computed here."""

import csv
import io
import math
from copy import deepcopy

import pytest
import torch
from attaching.models import FORMS, AtOnce, build, frames
from stepping import AllSteps, loop
from stepping import frames as images
from torch import Tensor, nn

import tracegrad as tg
from reference import loss_of
from tracegrad.measure.diagnosis import ALL, DiagnosedRule, Finding

ONE_RULE = {
    "relations": ["positive"],
    "normalizations": ["max"],
    "times": ["per_step"],
    "alphas": [0.5],
    "events": False,
}


def loss(outputs: Tensor, _: object) -> Tensor:
    return loss_of(outputs)


def diagnose(model: nn.Module, *batches: Tensor, **options: object):
    spiking = {"spiking_input": True} if isinstance(model, AtOnce) else {}
    return tg.diagnose(model, [(x, None) for x in batches], loss=loss, **spiking, **options)


def gradients(model: nn.Module, x: Tensor, **options: object) -> dict[str, Tensor]:
    """The weights' gradients of an attached copy."""
    model = deepcopy(model)
    spiking = {"spiking_input": True} if isinstance(model, AtOnce) else {}
    attached = tg.attach(model, x, **spiking, **options)
    loss_of(model(x)).backward()
    return {name: model.get_submodule(name).weight.grad for name, _ in attached.pairs}


def angle(before: Tensor, after: Tensor) -> Tensor:
    """Of each filter, in degrees."""
    found = []
    for a, b in zip(before.flatten(1), after.flatten(1), strict=True):
        if a.any():
            found.append(torch.rad2deg(torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))))
    return torch.stack(found)


def found(diagnosis, synapse: str = ALL, **rule: object) -> Finding:
    (one,) = (
        each
        for each in diagnosis.findings
        if each.synapse == synapse
        and all(getattr(each.rule, name, getattr(each, name, None)) == value for name, value in rule.items())
    )
    return one


RULES = [
    {"relation": "positive", "normalize": "max", "time": "per_step"},
    {"relation": "stdp", "normalize": "max", "time": "mean"},
    {"relation": "causal", "normalize": "cosine", "time": "final"},
    {"relation": "coincidence", "normalize": "centered", "time": "per_step"},
    {"relation": "positive", "apply": "event"},
]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_angles_are_those_of_an_attached_network(form: type[AtOnce], rule: dict[str, str]) -> None:
    model, x = build(form), frames()
    plain, scaled = gradients(model, x, alpha=0.0), gradients(model, x, alpha=0.5, **rule)
    diagnosis = diagnose(model, x, alphas=[0.5])
    for name in plain:
        expected = angle(plain[name], scaled[name])
        one = found(diagnosis, name, **{"apply": "outside", **rule})
        assert one.angle == pytest.approx(float(expected.quantile(0.5)), abs=1e-4)
        assert one.angle_range[1] == pytest.approx(float(expected.quantile(0.95)), abs=1e-4)


def test_convolutions_that_go_step_by_step() -> None:
    model, twin = loop(), AllSteps().double()
    twin.load_state_dict(model.layers.state_dict())
    stepping, at_once = diagnose(model, images()), diagnose(twin, images())
    for a, b in zip(stepping.overall, at_once.overall, strict=True):
        assert (a.rule, a.alpha) == (b.rule, b.alpha)
        assert a.angle == pytest.approx(b.angle, rel=1e-6)
        for name, value in b.of_relation.items():
            assert a.of_relation[name] == pytest.approx(value, abs=1e-6, nan_ok=True)
        for name, value in b.of_change.items():
            assert a.of_change[name] == pytest.approx(value, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("control", ["counts", "other_image", "pre_rate", "post_rate", "rank_one"])
def test_shares_are_those_of_the_controls(control: str) -> None:
    model, x = build(), frames()
    hats, grads = {}, {"baseline": gradients(model, x, alpha=0.0)}
    for name in (None, control):
        copy = build()
        attached = tg.attach(copy, x, spiking_input=True, alpha=0.5, control=name, record=True)
        loss_of(copy(x)).backward()
        hats[name] = attached.relations
        grads[name] = {synapse: copy.get_submodule(synapse).weight.grad for synapse, _ in attached.pairs}
    diagnosis = diagnose(model, x, **ONE_RULE)
    for synapse, hat in hats[None].items():
        one = found(diagnosis, synapse)
        steps = [
            torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].square()
            for a, b in zip(hat, hats[control][synapse], strict=True)
            if a.std() > 1e-9
        ]
        steps = [torch.nan_to_num(each) for each in steps]
        assert one.of_relation[control] == pytest.approx(float(torch.stack(steps).mean()), abs=1e-6)
        turned = []
        for name in (None, control):
            rows = zip(grads["baseline"][synapse], grads[name][synapse], strict=True)
            turned.append(torch.cat([b - (a @ b / (a @ a) if a.any() else 0) * a for a, b in rows]))
        a, b = turned
        assert one.of_change[control] == pytest.approx(float((a @ b) ** 2 / ((a @ a) * (b @ b))), abs=1e-6)


def test_of_spikes_in_one_step_counts_explain_everything() -> None:
    model, x = build(), frames(steps=1)
    for finding in diagnose(model, x, relations=["positive"], normalizations=["max"]).overall:
        assert finding.of_relation["counts"] == pytest.approx(1.0, abs=1e-9)
        assert finding.of_change["counts"] == pytest.approx(1.0, abs=1e-9)


def test_counts_explain_nothing_of_what_comes_before_less_what_comes_after() -> None:
    for finding in diagnose(build(), frames(), relations=["stdp"], normalizations=["max"]).overall:
        assert finding.of_relation["counts"] == pytest.approx(0.0, abs=1e-9)


def test_two_equal_halves_agree_and_so_do_equal_rules() -> None:
    tg.register_relation("test-positive", (tg.Term(+1),))
    x = frames()[:, [0, 1, 0, 1]]
    diagnosis = diagnose(build(), x, relations=["positive", "test-positive"], times=["mean"])
    assert all(each.reliability == pytest.approx(1.0) for each in diagnosis.overall)
    for (a, b), r2 in diagnosis.agreement.items():
        if (a.normalize, a.apply) == (b.normalize, b.apply):
            assert r2 == pytest.approx(1.0), f"{a} and {b}"
    assert any(r2 < 0.9 for r2 in diagnosis.agreement.values())


def test_nothing_of_the_model_changes() -> None:
    model = tg.models.resnet(blocks=(1,), width=4, in_channels=1)
    before, state = deepcopy(model.state_dict()), torch.get_rng_state()
    x, labels = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
    model.eval()
    tg.diagnose(model, [(x, labels)] * 2)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    tg.attach(model, x).detach()


def test_tables_and_sentences() -> None:
    diagnosis = diagnose(build(), frames(1), frames(2), alphas=[0.1, 0.5])
    rules = 5 * 4 * 3 + 4  # and four relations inside the sum: stdp has a negative term
    assert len(diagnosis.overall) == 2 * rules == len(diagnosis.sentences())
    rows = list(csv.DictReader(io.StringIO(diagnosis.csv())))
    assert len(rows) == 2 * rules * 3  # all, and two synapses
    assert {row["synapse"] for row in rows} == {"all", "a", "b"}
    assert 0 < float(rows[0]["angle"]) < 90
    lines = diagnosis.markdown().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 2 * rules + 1 + 1
    assert "nan" not in diagnosis.markdown() + diagnosis.csv()
    pairs = list(csv.DictReader(io.StringIO(diagnosis.agreement_csv())))
    assert all(0 <= float(row["r2"]) <= 1 + 1e-9 for row in pairs)


def test_a_sentence_says_what_is_timing() -> None:
    shares = {"counts": 0.998}
    rule = DiagnosedRule("outside", "positive", "max", "per_step")
    finding = Finding(rule, 0.1, ALL, 0.6612, (0.41, 12.3), 0.9, shares, {"counts": 0.9})
    assert str(finding) == (
        "positive, max, per_step, alpha 0.1: turns the gradient by 0.66 degrees (0.41 to 12 over filters); "
        "0.2 % of its relation and 10 % of that is timing."
    )


def test_shares_and_angles_from_ten_on_are_whole_numbers() -> None:
    rule = DiagnosedRule("outside", "stdp", "max", "mean")
    finding = Finding(rule, 0.5, ALL, 12.34, (9.96, 99.7), 0.9, {"counts": 0.0}, {"counts": 0.7})
    assert "by 12 degrees (10 to 100 over filters); 100 % of its relation and 30 % of that is timing." in str(finding)


def test_relations_that_need_equal_ends_have_no_finding_elsewhere() -> None:
    diagnosis = diagnose(loop(), images(), relations=["pre_pre"], normalizations=["max"], events=False)
    assert {finding.synapse for finding in diagnosis.findings} == {ALL, "layers.conv1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": ["no"]}, "unknown relation 'no'"),
        ({"normalizations": ["no"]}, "unknown normalization 'no'"),
        ({"times": ["no"]}, "unknown time 'no'"),
        ({"alphas": [2]}, r"alpha must be in \[0, 1\]"),
        ({"scaling": "no"}, "unknown scaling 'no'"),
    ],
    ids=str,
)
def test_what_is_unknown_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(build(), frames(), **options)


def test_it_takes_batches_of_two() -> None:
    with pytest.raises(ValueError, match="one batch at least"):
        diagnose(build())
    with pytest.raises(ValueError, match="needs two at least"):
        diagnose(build(), frames()[:, :1])


def test_a_silent_network_has_numbers_where_there_are_some() -> None:
    model = build()
    with torch.no_grad():
        model.b.weight.zero_()
        model.b.bias.fill_(-1.0)
    for finding in diagnose(model, frames()).findings:
        assert math.isnan(finding.angle) or finding.angle >= 0
