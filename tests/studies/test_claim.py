"""The study of the claim: its recipes train, and its stage 0 drops what its rule says."""

import csv
import json
import math
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.cli import main
from tracegrad.lab.data import Batches
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.lab.studies.statistics import holm
from tracegrad.measure.diagnosis import DiagnosedRule

CLAIM = Path(__file__).parents[2] / "studies" / "claim"
RECIPES = sorted(path.name for path in CLAIM.glob("*.yaml"))
TINY = {
    "--training.epochs": "1",
    "--training.batch_size": "8",
    "--data.train_size": "16",
    "--model.options": "{blocks: [1], width: 4, norm: tdbn}",
    "--seeds": "[0]",
}
DIGITS = {"--data.name": "digits", "--data.crop_padding": "1"}
SHORT = {"--data.options": "{frames: 4, repeats: 1}", "--model.time_steps": "4"}


def script(name):
    """A script of the study, imported once: stage_0 registers surrogates."""
    sys.path.insert(0, str(CLAIM))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(CLAIM))


@pytest.fixture(scope="module")
def stage_0():
    return script("stage_0")


def tiny(name: str) -> list[str]:
    options = TINY | (SHORT if "moving" in name else DIGITS)
    return [str(CLAIM / name), *(word for option in options.items() for word in option)]


SLOW = pytest.mark.slow  # nine methods each, two of them inside the sum


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name.startswith("stage-") else ()) for name in RECIPES]
)
def test_every_recipe_trains(name, tmp_path):
    assert main(["study", *tiny(name), "--output", str(tmp_path / "study")]) == 0
    methods = load_recipe(str(CLAIM / name)).methods
    for method in methods:
        result = json.loads((tmp_path / "study" / method / "seed-0" / "result.json").read_text())
        assert result["method"] == method
        assert math.isfinite(result["test_nll"])


@pytest.mark.parametrize("name", RECIPES)
def test_final_weights_are_measured(name):
    recipe = load_recipe(str(CLAIM / name))
    assert {recipe.setting(method).training.keep for method in recipe.methods} == {"final"}
    assert recipe.training.threads == 1


def test_no_seed_serves_two_stages():
    stages: dict[str, set[int]] = {}
    for name in RECIPES:
        if name.startswith(("checkpoints", "tuning", "stage")):
            stage = "stage-b" if name == "stage-c.yaml" else name.removesuffix(".yaml")[:7]  # C is paired with B
            stages.setdefault(stage, set()).update(load_recipe(str(CLAIM / name)).seeds)
    seeds = [seed for stage in stages.values() for seed in stage]
    assert sorted(stages) == ["checkpo", "stage-a", "stage-b", "tuning"]
    assert len(seeds) == len(set(seeds))


def test_stage_a_has_the_same_arms_on_both_data_sets():
    first, second = (load_recipe(str(CLAIM / f"stage-a-{data}.yaml")) for data in ("fashion-mnist", "moving"))
    assert first.methods == second.methods
    assert len(first.seeds) == len(second.seeds) == 10
    assert len(first.methods) <= 9  # eight and the baseline
    assert first.methods["placebo"].alpha == 1e-6


def untuned(name):
    """The methods of a recipe without the settings that tuning gave them."""
    methods = load_recipe(str(CLAIM / name)).methods
    return {method: replace(options, changes={}) for method, options in methods.items()}


@pytest.mark.parametrize("name", ["tuning.yaml", "stage-b-moving.yaml", "stage-c.yaml"])
def test_methods_are_those_of_stage_b(name):
    methods = untuned(name)
    assert methods == {method: untuned("stage-b.yaml").get(method) for method in methods}


def test_settings_are_those_of_tuning():
    with (CLAIM.parents[1] / "results" / "claim" / "tuning" / "settings.csv").open() as file:
        chosen = {row["Method"]: tuple(map(float, row["Chosen"].split(", "))) for row in csv.DictReader(file)}
    controls = {f"{arm}-{control}": setting for arm, setting in chosen.items() for control in ("counts", "shuffle")}
    stage_b = settings_of("stage-b.yaml")
    assert stage_b == {name: (chosen | controls).get(name, chosen["gradient-scale"]) for name in stage_b}
    assert set(settings_of("stage-b-penalty.yaml").values()) == {chosen["baseline"]}
    assert set(settings_of("stage-c.yaml").values()) == {chosen["gradient-scale"]}


def settings_of(name):
    """Learning rate and weight decay of each method."""
    recipe = load_recipe(str(CLAIM / name))
    trainings = {method: recipe.setting(method).training for method in recipe.methods}
    return {method: (training.learning_rate, training.weight_decay) for method, training in trainings.items()}


RULES = {
    "paper": DiagnosedRule("outside", "positive", "max", "per_step"),
    "mean": DiagnosedRule("outside", "positive", "mean", "per_step"),
    "stdp": DiagnosedRule("outside", "stdp", "max", "per_step"),
    "inside": DiagnosedRule("event", "positive", "mean", "per_step"),
}


def verdicts(stage_0, angles, r2):
    """Of arms (name of a rule, alpha) -> angle; names of two rules -> r^2."""
    arms = {stage_0.Arm(RULES[name], alpha): [angle, 0, 0, 0, 0] for (name, alpha), angle in angles.items()}
    seen = stage_0.Seen(arms, {(RULES[a], RULES[b]): value for (a, b), value in r2.items()})
    names = {rule: name for name, rule in RULES.items()}
    return {(names[arm.rule], arm.alpha): verdict for arm, verdict in stage_0.judge(seen).items()}


def test_the_papers_arm_stays_and_others_under_two_degrees_go(stage_0):
    found = verdicts(
        stage_0,
        {("paper", 0.1): 0.7, ("paper", 0.5): 1.99, ("stdp", 0.1): math.nan, ("inside", 0.1): 2.0},
        {("paper", "stdp"): 0.1, ("paper", "inside"): 0.2, ("stdp", "inside"): 0.3},
    )
    assert {arm for arm, verdict in found.items() if verdict.stays} == {("paper", 0.1), ("inside", 0.1)}
    assert found["paper", 0.5].why == found["stdp", 0.1].why == "under 2 degrees"
    assert found["stdp", 0.1].r2 == 0.3  # to the nearest that stays, for the table


def test_of_arms_of_one_alpha_that_do_the_same_the_first_stays(stage_0):
    same = {("paper", "mean"): 0.995, ("mean", "stdp"): 0.5, ("stdp", "inside"): 0.99, ("mean", "inside"): 0.2}
    angles = {(name, alpha): 5.0 for name in ("inside", "stdp", "mean") for alpha in (0.1, 0.5)}
    found = verdicts(stage_0, {**angles, ("paper", 0.1): 0.7, ("paper", 0.5): 1.0}, same)
    assert found["mean", 0.1].why == "does the same as positive, max, per_step, alpha 0.1"
    assert found["mean", 0.5].stays  # what it is like at this alpha is under two degrees
    assert all(found[name, alpha].stays for name in ("stdp", "inside") for alpha in (0.1, 0.5))  # 0.99 is not above


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two trained networks where stage 0 looks for those of cifar10."""
    folder = tmp_path_factory.mktemp("stage-0")
    seeds = ["--seeds", "[0, 1]", "--output", str(folder / "cifar10")]
    assert main(["study", *tiny("checkpoints-cifar10.yaml"), *seeds]) == 0
    return folder


def test_stage_0_looks_at_networks_and_goes_on(stage_0, networks, monkeypatch):
    monkeypatch.setattr(stage_0, "RELATIONS", ("positive", "stdp"))
    monkeypatch.setattr(stage_0, "NORMALIZATIONS", ("max", "mean"))
    monkeypatch.setattr(stage_0, "BATCH", 8)
    stage_0.main(networks, ["cifar10"])
    with (networks / "arms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (2 * 2 * 3 + 1) * 3
    paper = next(row for row in rows if row["why"] == "the paper's")
    assert (paper["networks"], paper["stays"], paper["alpha"]) == ("2", "yes", "0.1")
    assert float(paper["angle"]) == pytest.approx(sum(map(angle_at, runs(networks))) / 2, rel=1e-3)
    with (networks / "variations.csv").open() as file:
        changed = {row["variation"] for row in csv.DictReader(file)}
    assert changed == set(stage_0.VARIATIONS) - {"as it is", "T = 4"}
    assert "| as it is | 2 |" in (networks / "table.md").read_text()
    assert json.loads((networks / "environment-cifar10.json").read_text())["commit"]

    monkeypatch.setattr(stage_0, "look_at", None)  # nothing is looked at twice
    before = (networks / "table.md").read_text()
    stage_0.main(networks, ["cifar10"])
    assert (networks / "table.md").read_text() == before


def runs(networks):
    return [networks / "cifar10" / "baseline" / f"seed-{seed}" for seed in (0, 1)]


def angle_at(folder):
    """The paper's angle on a batch of eight, alone."""
    trained = TrainedRun.read(folder)
    batch = next(iter(Batches(trained.dataset.train, 8, dataset=trained.dataset, seed=trained.run.seed, shuffle=True)))
    only = {"relations": ["positive"], "normalizations": ["max"], "times": ["per_step"], "alphas": [0.1]}
    return tg.diagnose(trained.network(), [batch], events=False, **only).overall[0].angle


ACCURACIES = {  # validation accuracy (%) with two seeds; K spikes
    "baseline": (90.0, 80.0, 50),
    "placebo": (90.5, 79.5, 50),
    "gradient-scale": (91.0, 81.0, 50),
    "strong": (92.0, 80.0, 40),
    "stdp": (95.0, 85.0, 50),
    "late": (80.0, 70.0, 50),
}


def made_up(recipe, results, failed=(), test=None):
    """A study of a recipe whose results are made up.

    Args:
        recipe: whose methods, and others like its last one, were trained with seeds from 0.
        results: by method, what each seed's result.json holds.
        failed: (method, seed) of what diverged instead.
        test: from a result to the arrays of test.npz.
    """
    last = list(recipe.methods.values())[-1]
    methods = {name: recipe.methods.get(name, last) for name in results}
    seeds = list(range(max(map(len, results.values()))))
    recipe = replace(recipe, methods=methods, claims=recipe.claims.on(methods), seeds=seeds)
    runs = {
        (method, seed): FinishedRun(run_of(recipe, method, seed), result, [], [], {}, test(result) if test else {})
        for method, of_seeds in results.items()
        for seed, result in enumerate(of_seeds)
        if (method, seed) not in failed
    }
    return RunsOfStudy(recipe.name, recipe, runs, (), tuple(run_of(recipe, *each) for each in failed))


def run_of(recipe, method, seed):
    return Run(Path(), recipe.only(method, seed))


def stage_a(accuracies, *failed):
    """With these validation accuracies (%) and K spikes."""
    results = {
        name: [
            {"validation_accuracy": value / 100, "test_accuracy": 0.5, "spikes_per_image": spikes * 1e3}
            for value in values
        ]
        for name, (*values, spikes) in accuracies.items()
    }
    return made_up(load_recipe(str(CLAIM / "stage-a-moving.yaml")), results, failed)


def test_arms_are_ranked_by_what_they_gain_over_what_a_placebo_moves():
    rank_arms = script("rank_arms")
    quiet = {name: (values[0] + 1, values[1] + 1, values[2]) for name, values in ACCURACIES.items()}
    quiet["placebo"] = (91.1, 81.0, 50)
    measured = [
        rank_arms.measure(stage_a(ACCURACIES, ("stdp", 1)), 6000),
        rank_arms.measure(stage_a(quiet), 500),
    ]
    placebo, one_image = math.sqrt(2) / 2, 0.2  # 0.1 / sqrt(2), the second placebo's, is less than an image
    assert measured[0]["strong"].score == pytest.approx(1 / placebo)
    assert measured[1]["strong"].score == pytest.approx(1 / one_image)
    both = (1 / placebo + 1 / one_image) / 2
    # strong is as good as the paper's with fewer spikes; stdp, the best, failed where the baseline did not
    expected = [("strong", both), ("gradient-scale", both), ("late", -10 * both)]
    ranked = rank_arms.rank(measured)
    assert [arm for arm, _ in ranked] == [arm for arm, _ in expected] + ["stdp"]
    assert [score for _, score in ranked[:3]] == pytest.approx([score for _, score in expected])
    table = rank_arms.table(("one", "two"), measured)
    assert [row[0] for row in table.rows] == ["strong", "gradient-scale", "late", "stdp", "placebo"]
    assert table.rows[0][2:8] == ("2", "+1.00", "1.41", "+1.41", "+0.00", "-10.00")
    assert table.rows[0][8:] == ("2", "+1.00", "1.41", "+5.00", "+0.00", "-10.00")


def tuned(rate, decay, *failed, **accuracies):
    """One setting with these validation accuracies (%)."""
    recipe = load_recipe(str(CLAIM / "tuning.yaml"))
    recipe = replace(recipe, training=replace(recipe.training, learning_rate=rate, weight_decay=decay))
    results = {
        name: [{"validation_accuracy": value / 100, "test_accuracy": 1.0} for value in values]
        for name, values in accuracies.items()
    }
    return made_up(recipe, results, failed)


def test_each_method_gets_its_best_setting_or_the_usual_one_where_it_is_as_good():
    choose_settings = script("choose_settings")
    studies = [
        tuned(0.03, 1e-4, baseline=(60.0, 62.0), lift=(70.0, 70.0)),
        tuned(0.1, 1e-4, baseline=(61.0, 60.9), lift=(69.0, 69.0)),
        tuned(0.1, 5e-4, baseline=(61.0, 60.8), lift=(69.95, 69.95)),
        tuned(0.3, 1e-4, ("lift", 1), baseline=(61.0, 60.4), lift=(90.0, 90.0)),
    ]
    table = choose_settings.table(choose_settings.settings(studies))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.header == ("Method", "0.03, 0.0001", "0.1, 0.0001", "0.1, 0.0005", "0.3, 0.0001", "Chosen")
    assert rows["baseline"] == ("61.00", "60.95", "60.90", "60.70", "0.1, 0.0001")
    assert rows["lift"] == ("70.00", "69.00", "69.95", "45.00", "0.1, 0.0005"), "a failure counts as 0 %"


IMAGES = 1000


def orders(seed):
    """By which three methods each differ among themselves and from the others."""
    return seed, 2 * seed, seed // 2


def claimed(name, accuracies, spikes, seeds=6):
    """A study of a recipe of the claim: means of accuracy (%) that differ a little by seed and method; K spikes."""
    results = {
        method: [
            {
                "test_accuracy": (right := round(10 * mean) + 2 * ((orders(seed)[number // 3] + number) % 3 - 1))
                / IMAGES,
                "spikes_per_image": 1e3 * spikes[method] + seed,
                "test_nll": 1 - right / IMAGES,
            }
            for seed in range(seeds)
        ]
        for number, (method, mean) in enumerate(accuracies.items())
    }
    return made_up(load_recipe(str(CLAIM / name)), results, test=answers)


def answers(result):
    labels = np.zeros(IMAGES, dtype=np.uint16)
    return {"predicted": labels + (np.arange(IMAGES) >= round(IMAGES * result["test_accuracy"])), "labels": labels}


STAGE_B = load_recipe(str(CLAIM / "stage-b.yaml"))
BASELINE, (PAPER, ARM, INSIDE) = STAGE_B.baseline, STAGE_B.claims.better
COUNTS, SHUFFLE = STAGE_B.claims.better[ARM][1:]
INSIDE_COUNTS, AS_PAPER = STAGE_B.claims.better[INSIDE][1:]


def stage_b(spikes=50.0, **more):
    """Stage B with 70 % for all methods but those of `more`; the arm's spikes."""
    accuracies = dict.fromkeys(STAGE_B.methods, 70.0) | more
    return claimed("stage-b.yaml", accuracies, dict.fromkeys(accuracies, 50.0) | {ARM: spikes})


def said(**more):
    """The verdicts, by what they are about."""
    judge_claim = script("judge_claim")
    verdicts = judge_claim.verdicts(judge_claim.hypotheses(stage_b(**more)), 0.5)
    return dict(verdict.split(": ", 1) for verdict in verdicts)


def test_a_gain_is_claimed_only_where_no_control_shares_it():
    bounded = "that they differ by less than 0.5 points is shown."
    verdicts = said(**{ARM: 75.0})
    assert list(verdicts) == [
        f"{PAPER} - {BASELINE}",
        f"{PAPER} - {AS_PAPER}",
        f"{ARM} - {BASELINE}",
        f"{ARM} - {COUNTS}",
        f"{ARM} - {SHUFFLE}",
        f"{INSIDE} - {BASELINE}",
        f"{INSIDE} - {INSIDE_COUNTS}",
        f"{INSIDE} - {AS_PAPER}",
    ]
    assert verdicts[f"{ARM} - {BASELINE}"] == "a gain that its controls do not share."
    assert verdicts[f"{PAPER} - {BASELINE}"] == f"no gain is claimed; {bounded}"
    assert verdicts[f"{ARM} - {COUNTS}"].startswith("seen; that they differ by less than 0.5 points is not shown")
    assert verdicts[f"{ARM} - {SHUFFLE}"].startswith("seen;")
    assert verdicts[f"{INSIDE} - {INSIDE_COUNTS}"] == f"not seen; {bounded}"

    verdicts = said(**{PAPER: 75.0, ARM: 75.0, COUNTS: 75.0, INSIDE: 75.0})
    assert verdicts[f"{PAPER} - {BASELINE}"] == "a gain that its controls do not share."
    assert verdicts[f"{ARM} - {BASELINE}"] == "a gain, which a control shares."
    assert verdicts[f"{ARM} - {COUNTS}"] == f"not seen; {bounded}"
    assert verdicts[f"{INSIDE} - {BASELINE}"] == "a gain that its controls do not share."

    moving = dict.fromkeys(load_recipe(str(CLAIM / "stage-b-moving.yaml")).methods, 70.0) | {PAPER: 75.0}
    judge_claim = script("judge_claim")
    study = claimed("stage-b-moving.yaml", moving, dict.fromkeys(moving, 50.0))
    first, *_ = judge_claim.verdicts(judge_claim.hypotheses(study), 0.5)
    assert first == f"{PAPER} - {BASELINE}: a gain, of which no control was trained."

    worse = said(**{BASELINE: 75.0, PAPER: 75.0})
    assert "no gain is claimed" in worse[f"{ARM} - {BASELINE}"], "it is worse than the baseline"


def test_holms_correction_is_over_the_hypotheses_against_the_baseline_alone():
    judge_claim = script("judge_claim")
    found = judge_claim.hypotheses(stage_b(**{ARM: 70.2}))
    effects, controls = [each.effect for each in found], [control for each in found for control in each.controls]
    plain = [judge_claim.difference(each.pairs, judge_claim.ACCURACY).p for each in (*effects, *controls)]
    assert [each.accuracy.p for each in effects] == pytest.approx(holm(plain[:3]))
    assert [each.accuracy.p for each in controls] == plain[3:]
    assert [len(each.pairs) for each in effects] == [6, 6, 6]


def test_fewer_spikes_are_claimed_below_the_penaltys_curve_alone():
    judge_claim = script("judge_claim")
    names = list(load_recipe(str(CLAIM / "stage-b-penalty.yaml")).methods)
    curve = dict(zip(names, (69.8, 70.3, 60.0), strict=True)), dict(zip(names, (45.0, 49.0, 10.0), strict=True))
    penalty = claimed("stage-b-penalty.yaml", *curve, seeds=4)
    for few, claim in ((40.0, "yes"), (48.5, "no")):
        study = stage_b(few)
        effects = [each.effect for each in judge_claim.hypotheses(study)]
        paper, arm, _ = judge_claim.spikes_table(effects, study, penalty).rows
        assert (paper[-1], arm[-1]) == ("no", claim)
        assert float(arm[1]) == pytest.approx(few - 50)
        assert float(arm[4]) == pytest.approx(few, abs=0.01)
        without = judge_claim.spikes_table(effects, study, None).rows[1]
        assert without[-2:] == ("–", "no"), "without a curve nothing is claimed"


def test_the_picture_shows_each_pair_beside_the_mean_and_its_interval():
    judge_claim = script("judge_claim")
    found = judge_claim.hypotheses(stage_b(**{ARM: 75.0}))
    rows = [(each.name, each.pairs) for one in found for each in (one.effect, *one.controls)]
    (axes,) = script("effects").effects_figure("title", rows, 0.5).axes
    names = [label.get_text().replace(" − ", " - ") for label in axes.get_yticklabels()]
    assert names == [name for name, _ in rows]
    row = names.index(f"{ARM} - {BASELINE}")
    drawn = [line for line in axes.lines if len(line.get_xdata()) and line.get_ydata()[0] == row]
    pairs, interval, mean = [list(line.get_xdata()) for line in drawn]
    effect = found[1].effect.accuracy
    assert sum(pairs) / len(pairs) == pytest.approx(mean[0]) == pytest.approx(effect.mean)
    assert len(pairs) == 6
    assert interval == pytest.approx([effect.low, effect.high])


def test_the_curve_of_a_penalty_is_linear_between_its_points():
    at = script("judge_claim").spikes_on_curve
    points = [(70.0, 50.0), (60.0, 30.0), (65.0, 20.0)]
    assert at(points, 70.0) == 50
    assert at(points, 67.5) == 35
    assert at(points, 62.0) == 20, "a more accurate point with fewer spikes serves, too"
    assert at(points, 71.0) == math.inf


def test_the_papers_rows_are_beside_ours():
    paper_rows = script("paper_rows")
    soft = stage_b(**{PAPER: 71.0, BASELINE: 75.0})
    hard = claimed("stage-c.yaml", {BASELINE: 65.0, PAPER: 64.0}, {BASELINE: 40.0, PAPER: 30.0}, seeds=4)
    studies = [paper_rows.only(*each, hard.recipe.seeds) for each in ((soft, "soft"), (hard, "hard"))]
    rows = paper_rows.rows_table(studies).rows
    assert [row[:2] for row in rows[:2]] == [(AS_PAPER, "soft"), (PAPER, "soft")], "both with the same settings"
    assert [row[:2] for row in rows[2:4]] == [(BASELINE, "hard"), (PAPER, "hard")]
    assert rows[2] == (BASELINE, "hard", "64.95", "65.20", "0.19", "40.00", "40.00", "0.00")
    theirs = "gradient-scale (Park et al. 2023, resnet20)"
    assert rows[-1] == (theirs, "hard", "93.58", "93.69", "–", "451.00", "475.00", "–")
    first, second = paper_rows.differences_table(studies).rows
    assert (first[0], first[1], first[-2:]) == ("soft", "+0.90", ("+0.14", "-5.00"))
    assert (second[0], second[1], second[4], second[-2:]) == ("hard", "-0.95", "-10.00", ("-0.10", "-12.00"))
    setting = {row[0]: row[1:] for row in paper_rows.setting_table(studies[0]).rows}
    assert "data.root" not in setting, "where the data lies is no difference"
    assert setting["training.epochs"] == ("6", "300")
    assert setting["model.name"] == ("resnet", "resnet20")
    assert setting["training.weight_decay"] == ("0.0005", "0.0001"), "what tuning gave gradient-scale"
    soft.recipe.methods[PAPER] = replace(soft.recipe.methods[PAPER], changes={})
    with pytest.raises(ValueError, match="same settings"):
        paper_rows.only(soft, "soft", [0])
