import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

import tracegrad.lab.runs.run as run_module
from tracegrad.events.library import digest, machine_instruction_set
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run, commit, environment, plan
from tracegrad.lab.studies.checks import check_runs


def test_a_study_is_planned_pair_by_pair(tiny, tmp_path):
    runs = plan(tiny, tmp_path)
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [
        "baseline/seed-0",
        "gradient-scale/seed-0",
        "baseline/seed-1",
        "gradient-scale/seed-1",
    ]
    assert [(run.name, run.seed) for run in runs[:2]] == [("baseline", 0), ("gradient-scale", 0)]
    assert runs[1].method == tiny.methods["gradient-scale"]


def test_the_config_is_a_recipe_of_the_run(tiny, tmp_path):
    run = Run(tmp_path, tiny.only("gradient-scale", 1))
    run.write_config()
    assert load_recipe(str(tmp_path / "config.yaml")) == run.recipe
    run.check()


def test_more_seeds_or_methods_leave_a_run_the_same(tiny, tmp_path):
    Run(tmp_path, tiny.only("baseline", 0)).write_config()
    more = replace(tiny, seeds=[0, 1, 2], description="other", data=replace(tiny.data, download=True))
    Run(tmp_path, more.only("baseline", 0)).check()


def test_what_stopped_before_anything_was_kept_can_be_corrected(tiny, tmp_path):
    Run(tmp_path, replace(tiny, training=replace(tiny.training, learning_rate=1e9)).only("baseline", 0)).write_config()
    Run(tmp_path, tiny.only("baseline", 0)).check()


def test_files_of_others_are_not_written_among_and_not_removed(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    run = Run(tmp_path, tiny.only("baseline", 0))
    with pytest.raises(ValueError, match="holds files, but no config.yaml of a run; choose another --output"):
        run.check()
    run.write_config()
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / ".env.1").write_text("mine")
    run.clear()
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", ".env.1", "config.yaml"}


def test_another_configuration_is_an_error_that_says_what_differs(tiny, tmp_path):
    Run(tmp_path, tiny.only("baseline", 0)).write_config()
    (tmp_path / "checkpoints").mkdir()
    other = Run(tmp_path, replace(tiny, training=replace(tiny.training, epochs=9)).only("baseline", 0))
    with pytest.raises(ValueError, match=r"another training.epochs \(2 there, 9 here\); choose another --output"):
        other.check()


def test_damaged_results_are_errors(tiny, tmp_path):
    run = Run(tmp_path, tiny.only("baseline", 0))
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ValueError, match="holds files, but no config.yaml of a run"):
        run.check()
    with pytest.raises(ValueError, match="result.json is damaged"):
        run.read_result()


@pytest.mark.parametrize("content", ["5", "[]", "{}", "null", '{"test_accuracy": "much"}', "[" * 100_000])
def test_a_result_that_is_none_is_damaged(content, tiny, tmp_path):
    run = Run(tmp_path, tiny.only("baseline", 0))
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match="result.json is damaged.*; remove it, and the same command measures the run"):
        run.read_result()


def test_a_crop_that_does_not_fit_stops_before_anything_is_written(tiny, tmp_path):
    runs = plan(replace(tiny, data=replace(tiny.data, crop_padding=100)), tmp_path / "study")
    with pytest.raises(ValueError, match="crop_padding is 100; it must be under the image's 8 pixels"):
        check_runs(runs, planned=runs)
    assert not (tmp_path / "study").exists()


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert found["versions"].keys() == {"python", "tracegrad", "torch", "lightning-fabric", "numpy"}
    assert found["machine"]["cores"] >= 1
    assert found["command"]
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", found["commit"])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that holds the package, and what Git does in it."""
    package = tmp_path / "src" / "tracegrad"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(run_module, "PACKAGE", package)

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "--message", "first")
    return package, git


def test_the_commit_is_that_of_the_checkout_that_holds_the_package(checkout):
    package, git = checkout
    head = git("rev-parse", "HEAD")
    (package.parent / "notes.txt").write_text("nothing of the package")
    assert commit() == head
    (package / "__init__.py").write_text("changed")
    assert commit() == f"{head}-dirty"


def test_the_commit_is_that_from_which_pip_installed_the_package(checkout, tmp_path, monkeypatch):
    package, _ = checkout
    monkeypatch.setattr(run_module, "PACKAGE", package.parent / "site-packages" / "tracegrad")  # in it, and not of it
    run_module.PACKAGE.mkdir(parents=True)
    (run_module.PACKAGE / "__init__.py").write_text("")
    metadata = tmp_path / "metadata" / "tracegrad-0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tracegrad\nVersion: 0.0\n")
    monkeypatch.setattr(sys, "path", [str(metadata.parent), *sys.path])
    assert commit() is None
    (metadata / "direct_url.json").write_text(
        json.dumps({"url": "file:///x", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}})
    )
    assert commit() == "a" * 40


def test_the_environment_names_what_settles_the_rounding_of_the_event_kernels(monkeypatch):
    monkeypatch.setenv("TRACEGRAD_EVENTS", "auto")
    found = environment()["machine"]["event kernels"]
    assert found == f"{machine_instruction_set()}, source {digest()}"
    monkeypatch.setenv("TRACEGRAD_EVENTS", "0")
    assert environment()["machine"]["event kernels"] == "none"
