"""Run folders that cannot be written to, are full, or are half there; data that are gone."""

import os
import re
import shutil
import subprocess

import pytest

from lab.data.archives import truncate
from lab.data.test_folder import write_images
from lab.disk import full_disk
from lab.same import assert_same_run
from tracegrad.cli import main

TINY = [
    "--training.threads=1",
    "--training.epochs=3",
    "--data.train_size=200",
    "--model.options.width=4",
    "--model.options.blocks=[1]",
]


def train(folder, *options):
    return main(["train", "digits", *TINY, "--output", str(folder), *options])


def error_of(capsys):
    shown = capsys.readouterr()
    assert shown.out == ""
    return re.fullmatch(r"tracegrad: error: (.*)\n", shown.err)[1]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one complete run, not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    assert train(folder) == 0
    return folder


@pytest.fixture
def run(study, tmp_path):
    """A copy of its run."""
    return shutil.copytree(study, tmp_path / "study") / "gradient-scale" / "seed-0"


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read only until the end of the test."""
    mounted, changed = [], []

    def protect(folder):
        folder.chmod(0o555)
        changed.append(folder)
        if os.access(folder, os.W_OK):  # root is stopped by nothing but the file system
            for options in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
                if subprocess.run(["mount", *options], capture_output=True).returncode:
                    pytest.skip("root may not mount here")
                mounted.append(folder)

    yield protect
    for folder in mounted[::2]:
        subprocess.run(["umount", folder], check=True)
    for folder in changed:
        folder.chmod(0o755)


def test_a_read_only_folder_is_refused_before_training(tmp_path, read_only, capsys):
    read_only(tmp_path)
    assert train(tmp_path) == 2
    assert re.search(
        r"^cannot lock .*seed-0.lock: (Read-only file system|Permission denied); choose an --output", error_of(capsys)
    )


def test_a_complete_run_in_a_read_only_folder_can_be_used(run, read_only, tmp_path, capsys):
    read_only(run)
    assert train(run.parents[1]) == 0
    assert main(["export", str(run), "--output", str(tmp_path / "weights")]) == 0
    capsys.readouterr()
    assert main(["export", str(run)]) == 2
    assert "cannot write" in error_of(capsys)
    assert main(["evaluate", str(run), "--time_steps", "[4]"]) == 2
    assert "evaluation.json: " in error_of(capsys)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path, study, capsys):
    run = tmp_path / "gradient-scale/seed-0"
    with full_disk(20_000):
        assert train(tmp_path) == 2
    assert re.search(r"^cannot write .*: File too large$", error_of(capsys))
    assert not list(run.rglob(".*"))
    assert train(tmp_path) == 0
    assert_same_run(run, study / "gradient-scale/seed-0")


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_half_written_runs_are_one_line(command, run, capsys):
    truncate(run / "checkpoints/weights.ckpt")
    assert main([command, str(run)]) == 2
    assert "weights.ckpt is damaged" in error_of(capsys)
    (run / "result.json").unlink()
    assert main([command, str(run)]) == 2
    assert "holds an interrupted run; start it again to go on" in error_of(capsys)
    (run / "config.yaml").unlink()
    assert main([command, str(run)]) == 2
    assert "is no run: it has no config.yaml; give a folder such as runs/NAME/METHOD/seed-0" in error_of(capsys)


def test_a_truncated_result_is_measured_again_once_it_is_removed(run, study, capsys):
    truncate(run / "result.json")
    assert train(run.parents[1]) == 2
    assert "result.json is damaged" in (message := error_of(capsys))
    assert "remove it, and the same command measures the run again" in message
    (run / "result.json").unlink()
    assert train(run.parents[1]) == 0
    assert_same_run(run, study / "gradient-scale/seed-0")


def test_data_that_are_gone_are_named(tmp_path, capsys):
    data = write_images(tmp_path / "pets", count=20)
    small = ["--model.options.width=4", "--model.options.blocks=[1]", "--training.epochs=1", "--training.threads=1"]
    command = ["train", "digits", *small, "--data.name=folder", "--data.root", str(data), "--output"]
    assert main([*command, str(tmp_path / "study")]) == 0
    capsys.readouterr()
    shutil.rmtree(data)
    assert main(["evaluate", str(tmp_path / "study/gradient-scale/seed-0")]) == 2
    assert re.search(r"^no folder .*pets: set data.root to the folder", error_of(capsys))
    assert main([*command, str(tmp_path / "other")]) == 2
    assert re.search(r"^no folder .*pets: set data.root to the folder", error_of(capsys))
    assert not (tmp_path / "other").exists()
