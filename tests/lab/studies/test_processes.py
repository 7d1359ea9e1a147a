"""Two processes that train one network together equal one process on the same batches."""

import pytest
import torch

from lab.processes import ONE, TORCHRUN, run_study, start_study
from tracegrad.lab.runs.checkpoints import read_checkpoint
from tracegrad.lab.studies.collect import collect

RECIPE = """
extends: digits
data: {train_size: 330, crop_padding: 1, cutmix: 1, cutmix_until: 2}
model: {options: {blocks: [1, 1], width: 4}}
training: {epochs: 4, batch_size: 51, learning_rate: 0.1, precision: fp64, threads: 1, checkpoint_every: 2steps}
methods: {baseline: {alpha: 0}, gradient-scale: {alpha: 0.3}}
seeds: [0]
"""


def assert_same(one, two):
    for ours, theirs in zip(collect([one])[0].runs.values(), collect([two])[0].runs.values(), strict=True):
        assert ours.run.name == theirs.run.name
        assert len(ours.epochs) == 4
        for row, other in zip(ours.epochs, theirs.epochs, strict=True):
            for name in ("train_loss", "train_accuracy", "validation_accuracy"):
                assert row[name] == pytest.approx(other[name], abs=1e-6)
        for name in ("test_accuracy", "spikes_per_image", "pairs"):
            assert ours.result[name] == theirs.result[name]
        weights = [read_checkpoint(each.run.weights)["model"] for each in (ours, theirs)]
        assert weights[0].keys() == weights[1].keys()
        for name, value in weights[0].items():
            assert torch.allclose(value, weights[1][name], rtol=0, atol=1e-6), name


@pytest.mark.slow
def test_torchrun_equals_one_process_and_goes_on_after_a_kill(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run_study(ONE, tmp_path, "one")
    both = ["--training.devices", "2"]
    shown = run_study(TORCHRUN, tmp_path, "two", *both)
    assert shown.count("baseline, seed 0: test") == 1  # the first process alone says so
    assert_same(tmp_path / "one", tmp_path / "two")

    process = start_study(TORCHRUN, tmp_path, "three", *both)
    saved = tmp_path / "three/gradient-scale/seed-0/checkpoints/last.ckpt"
    while process.poll() is None and not saved.exists():
        pass
    process.kill()  # torchrun; its workers notice that it is gone, or are in the way of nobody: the lock is theirs
    process.communicate()
    run_study(TORCHRUN, tmp_path, "three", *both)
    for name in ("metrics.csv", "relations.csv"):
        ours, theirs = (tmp_path / each / "gradient-scale/seed-0" / name for each in ("two", "three"))
        assert [line.rsplit(",", 1)[0] for line in ours.read_text().splitlines()] == [
            line.rsplit(",", 1)[0] for line in theirs.read_text().splitlines()
        ]


@pytest.mark.slow
def test_without_torchrun_the_other_process_is_started(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run_study(ONE, tmp_path, "one")
    run_study(ONE, tmp_path, "two", "--training.devices", "2")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_other_processes_than_the_recipe_asks_for_are_an_error(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    process = start_study(TORCHRUN, tmp_path, "out", "--training.devices", "3")
    assert "there are 2 processes" in process.communicate(timeout=200)[1]
    assert process.returncode != 0
