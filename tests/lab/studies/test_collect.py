import io
import json
import shutil

import numpy as np
import pytest

from tracegrad.lab.studies.collect import collect

RUN = "gradient-scale/seed-0"


def test_a_study(trained, recipe):
    (study,) = collect([trained])
    assert study.name == "tiny"
    assert study.recipe == recipe
    assert set(study.runs) == {(method, seed) for method in recipe.methods for seed in (0, 1)}
    assert [run.run.seed for run in study.of("baseline")] == [0, 1]
    assert study.unfinished == ()
    run = study.runs["gradient-scale", 0]
    assert [row["epoch"] for row in run.epochs] == [1, 2]
    assert {row["quantity"] for row in run.relations} == {"relation", "scale"}
    assert "neurons" in run.probe


def test_runs_of_one_study_come_together(trained):
    (study,) = collect([trained / "baseline/seed-1", trained / RUN, trained / RUN])
    assert set(study.runs) == {("baseline", 1), ("gradient-scale", 0)}
    assert study.pairs("gradient-scale", "baseline") == []


def test_runs_of_other_recipes_stay_apart(trained, study):
    for config in study.glob("*/*/config.yaml"):
        config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    assert [each.name for each in collect([trained, study])] == ["tiny", "tiny-2"]


def test_an_unfinished_run_is_told(study):
    (study / RUN / "result.json").unlink()
    (found,) = collect([study])
    assert ("gradient-scale", 0) not in found.runs
    ((run, epochs),) = found.unfinished
    assert (run.label, epochs) == ("gradient-scale, seed 0", 2)


def test_a_run_killed_before_its_first_epoch_ended(study):
    for name in ("result.json", "metrics.csv", "relations.csv", "probe.npz"):
        (study / RUN / name).unlink()
    (found,) = collect([study])
    assert found.unfinished[0][1] == 0


def test_nothing_finished(study):
    for result in study.glob("*/*/result.json"):
        result.unlink()
    with pytest.raises(ValueError, match="tiny is complete"):
        collect([study])


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_runs(tmp_path, make):
    folder = tmp_path / "empty"
    if make:
        folder.mkdir()
    with pytest.raises(ValueError, match="empty is no run and no study"):
        collect([folder])


def test_the_same_method_and_seed_twice(trained, study):
    with pytest.raises(ValueError, match="hold the same method and seed"):
        collect([trained, study])


def test_one_name_for_two_methods(trained, study, tmp_path):
    other = shutil.copytree(study / RUN, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("alpha: 0.1", "alpha: 0.2").replace("- 0\n", "- 7\n"))
    with pytest.raises(ValueError, match="other options than another run called 'gradient-scale'"):
        collect([trained, other])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)


def pickled(save=np.save):
    file = io.BytesIO()
    save(file, np.array([{}], dtype=object))
    return file.getvalue()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", cut),
        ("result.json", flip),
        ("result.json", lambda path: path.write_text("[]")),
        ("result.json", lambda path: path.write_text("{}")),
        ("metrics.csv", cut),
        ("metrics.csv", empty),
        ("metrics.csv", lambda path: path.write_bytes(bytes(100))),
        ("metrics.csv", lambda path: path.write_bytes(path.read_bytes()[:-3])),  # within the last number
        ("metrics.csv", lambda path: path.write_text("epoch,seconds\n1,2\n")),
        ("metrics.csv", lambda path: path.write_text("epoch,train_loss,validation_accuracy\n1,x,2\n")),
        ("relations.csv", cut),
        ("relations.csv", flip),
        ("probe.npz", cut),
        ("probe.npz", flip),
        ("probe.npz", empty),
        ("probe.npz", lambda path: path.write_bytes(pickled())),
        ("probe.npz", lambda path: path.write_bytes(pickled(np.savez))),
        ("config.yaml", flip),
        ("config.yaml", lambda path: path.write_text("seeds: [0, 1]\n")),
        ("config.yaml", lambda path: path.write_text("unknown: 1\n")),
    ],
)
def test_damaged_files_are_named_on_one_line(study, name, damage):
    damage(study / RUN / name)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
        collect([study])
    assert "\n" not in str(error.value)
    assert RUN in str(error.value)


def test_a_result_without_a_number_is_damaged(study):
    path = study / RUN / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": "high"}))
    with pytest.raises(ValueError, match="its content.test_accuracy must be a valid number, not 'high'"):
        collect([study])
