import shutil
from dataclasses import replace

import pytest
from scipy import stats

from tracegrad.lab.recipe.fields import Claims
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.comparing import claims_table
from tracegrad.lab.report.writing import write_study
from tracegrad.lab.studies.collect import collect

ACCURACIES = {
    "baseline": (0.80, 0.81, 0.82, 0.83),
    "control": (0.80, 0.82, 0.82, 0.84),
    "method": (0.90, 0.90, 0.93, 0.93),
}


@pytest.fixture
def study(trained):
    """Three methods with these accuracies for four seeds."""
    (found,) = collect([trained])
    run = next(iter(found.runs.values()))
    methods = {name: Method(alpha=0.0 if name == "baseline" else 0.1) for name in ACCURACIES}
    runs = {
        (name, seed): replace(run, result={**run.result, "test_accuracy": accuracy})
        for name, accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    }
    recipe = replace(found.recipe, methods=methods, seeds=[0, 1, 2, 3])
    return replace(found, recipe=recipe, runs=runs)


def rows(study, **claims):
    table = claims_table(replace(study, recipe=replace(study.recipe, claims=Claims(**claims))))
    return {row[0]: row[1:] for row in table.rows}


def test_better_than_two_is_the_worse_of_both(study):
    found = rows(study, better={"method": ["baseline", "control"], "control": ["baseline"]})
    p = max(stats.ttest_rel(ACCURACIES["method"], ACCURACIES[other]).pvalue for other in ("baseline", "control"))
    assert found["method is better than baseline and control"] == (f"{p:.3f}", f"{2 * p:.3f}", "supported")
    assert found["control is better than baseline"][-1] == "not supported"
    assert rows(study, better={"baseline": ["method"]})["baseline is better than method"][0] == "1.000"


def test_within_a_margin(study):
    found = rows(study, margin=1.5)
    differences = [0, 1, 0, 1]  # points, of control to baseline
    upper = stats.ttest_1samp(differences, 1.5, alternative="less").pvalue
    assert found["control and baseline differ by less than 1.5 points"][0] == f"{upper:.3f}"
    assert found["method and baseline differ by less than 1.5 points"][-1] == "not supported"
    assert found["method is less than 1.5 points worse than baseline"][-1] == "supported"


def test_who_diverged_more_often_supports_nothing(study):
    run = next(iter(study.runs.values())).run
    method = replace(run, recipe=replace(run.recipe, methods={"method": Method()}))
    failed = replace(study, diverged=(method,))
    assert rows(failed, better={"method": ["baseline"]})["method is better than baseline"][0] == "1.000"


def test_without_claims_there_is_no_table(study):
    assert not claims_table(study).rows


def test_a_study_writes_them_and_a_report_finds_them(trained, recipe, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "study")
    claimed = replace(recipe, claims=Claims(margin=50, better={"gradient-scale": ["baseline"]}))
    assert len(write_study(claimed, folder)["claims"].rows) == 3
    assert "claims on test accuracy" in (folder / "table.md").read_text()
    (found,) = collect([folder])
    assert claims_table(found) == write_study(claimed, folder)["claims"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: {margin: 0}", "claims.margin must be greater than 0, not 0"),
        ("claims: {better: {gs: [baseline]}}", "a method in claims.better must be one of baseline, gradient-scale"),
        ("claims: {better: {gradient-scale: [bse]}}", "a method in claims.better must be one of .*, not 'bse'"),
    ],
)
def test_wrong_claims_stop_before_training(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: digits\n{text}\n")
    with pytest.raises(ValueError, match=message):
        load_recipe(str(tmp_path / "mine.yaml"))
