"""Trainings that come to nothing: the study goes on, and they count as failures."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tracegrad.cli import main
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.report.words import summarize_in_words
from tracegrad.lab.report.writing import write_report, write_study
from tracegrad.lab.runs.run import plan
from tracegrad.lab.studies.collect import collect
from tracegrad.lab.studies.study import run_all

WILD = Method(alpha=0.1, changes={"training": {"learning_rate": 1e30}})


def train(recipe, folder):
    console = Console(file=io.StringIO(), width=200)
    run_all(plan(recipe, folder), console)
    return console.file.getvalue()


@pytest.fixture
def wild(recipe):
    return replace(recipe, name="wild", methods={**recipe.methods, "wild": WILD}, seeds=[0])


def test_the_others_are_trained_and_it_is_told(wild, tmp_path):
    shown = train(wild, tmp_path)
    assert "baseline, seed 0: test" in shown
    assert "gradient-scale, seed 0: test" in shown
    assert "diverged: wild, seed 0: the loss is nan in epoch 1" in shown
    assert not (tmp_path / "wild/seed-0/result.json").exists()
    table = write_study(wild, tmp_path)["results"]
    assert table.header[-1] == "Diverged"
    assert {row[0]: (row[2], row[-1]) for row in table.rows}["wild"] == ("–", "1 of 1")
    assert {row[-1] for row in table.rows if row[0] != "wild"} == {"0 of 1"}
    (study,) = collect([tmp_path])
    assert "wild diverged in 1 of 1 runs (seed 0): these are failures." in summarize_in_words(study)
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "Diverged, and counted as failures: wild, seed 0: the loss is nan" in page


def test_it_is_not_trained_again_unless_something_else_is_asked_for(wild, tmp_path):
    train(wild, tmp_path)
    before = (tmp_path / "wild/seed-0/config.yaml").stat().st_mtime_ns
    assert "diverged: wild, seed 0" in train(wild, tmp_path)
    assert (tmp_path / "wild/seed-0/config.yaml").stat().st_mtime_ns == before
    corrected = replace(wild, methods={**wild.methods, "wild": replace(WILD, changes={})})
    assert "wild, seed 0: test" in train(corrected, tmp_path)
    assert not (tmp_path / "wild/seed-0/diverged.json").exists()


def test_what_starts_from_it_is_a_failure_too(recipe, tmp_path):
    source = Method(alpha=0.0, kind="relu", changes=WILD.changes)
    light = Method(alpha=0.0, kind="calibration", source="relu", options={"images": 50})
    shown = train(replace(recipe, methods={"relu": source, "light": light}, seeds=[0]), tmp_path)
    assert "diverged: light, seed 0: its source relu diverged" in shown


def test_a_single_training_is_an_error(tmp_path, capsys):
    options = ["--training.learning_rate", "1e30", "--training.epochs", "1", "--data.train_size", "100"]
    for _ in range(2):
        assert main(["train", "digits", "--method", "baseline", "--output", str(tmp_path), *options]) == 2
        assert "baseline, seed 0: the loss is nan in epoch 1" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "baseline/seed-0")]) == 2
    assert "holds a run that diverged" in capsys.readouterr().err


def test_a_method_that_diverged_more_often_shows_nothing(trained, recipe):
    (study,) = collect([trained])
    failed = replace(study, diverged=(plan(recipe, trained)[-1],))
    runs = {
        key: replace(run, result={**run.result, "test_accuracy": 0.9 + 0.001 * key[1] if "scale" in key[0] else 0.5})
        for key, run in study.runs.items()
    }
    sentence = summarize_in_words(replace(study, runs=runs))[0]
    assert "points (95\u00a0% interval" in sentence
    assert ", higher;" in sentence
    sentence, _, told = summarize_in_words(replace(failed, runs=runs))
    assert "nothing shown, as it diverged more often" in sentence
    assert told.startswith("gradient-scale diverged in 1 of 3 runs (seed 1)")
