import json
import logging
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch

from lab.data.archives import flip_bit, truncate
from lab.disk import full_disk
from lab.processes import start
from lab.same import assert_same_run, rows
from lab.watching import Interrupt
from tracegrad.cli import main
from tracegrad.lab.runs.checkpoints import latest_checkpoint
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.train_run import train_run
from tracegrad.snn.models import register_model, resnet

EPOCHS = 3


@register_model
def resnet_with_dropout(num_classes=10, in_channels=3, width=4, time_steps=4, neuron=None):
    return torch.nn.Sequential(
        resnet(num_classes, in_channels, (1,), width, time_steps, neuron=neuron), torch.nn.Dropout(0.2)
    )


TINY = [
    "--training.threads=1",
    "--data.train_size=200",
    "--model.options.width=4",
    "--model.options.blocks=[1]",
]


@pytest.fixture(scope="module")
def recipe(tiny):
    return replace(tiny, training=replace(tiny.training, epochs=EPOCHS), seeds=[0]).only("gradient-scale", 0)


@pytest.fixture(scope="module")
def undisturbed(recipe, digits, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("undisturbed"), recipe)
    train_run(run, digits)
    return run.folder


def interrupt(run, digits, epochs):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=f"gradient-scale, seed 0: {epochs} of {EPOCHS} epochs are saved"):
        train_run(run, digits, Interrupt(epochs))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not run.complete


@pytest.fixture
def interrupted(recipe, digits, tmp_path):
    """A run with two epochs behind it."""
    run = Run(tmp_path / "run", recipe)
    interrupt(run, digits, 2)
    return run


def go_on(run, digits):
    train_run(run, digits)


@pytest.mark.parametrize("epochs", range(EPOCHS))
def test_interrupted_after_any_epoch_and_resumed_is_the_same_to_the_bit(epochs, recipe, digits, undisturbed, tmp_path):
    run = Run(tmp_path, recipe)
    interrupt(run, digits, epochs)
    assert (run.checkpoints / "last.ckpt").exists() == (epochs > 0)
    go_on(run, digits)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(
    "options",
    [
        {"control": "shuffle", "alpha_schedule": "warmup", "alpha_epochs": 2},
        {"control": "rank_one", "time": "mean", "alpha_schedule": "cosine"},
    ],
    ids=str,
)
def test_controls_and_schedules_go_on_to_the_bit(options, recipe, digits, tmp_path):
    """Permutations go on where they were, power iterations from their last vectors, alpha from its step."""
    training = replace(recipe.training, checkpoint_every="2steps")
    method = replace(recipe.methods["gradient-scale"], **options)
    recipe = replace(recipe, training=training, methods={"gradient-scale": method})
    whole, cut = Run(tmp_path / "whole", recipe), Run(tmp_path / "cut", recipe)
    train_run(whole, digits)
    with pytest.raises(KeyboardInterrupt):
        train_run(cut, digits, Interrupt(1, steps=3))
    go_on(cut, digits)
    assert_same_run(cut.folder, whole.folder)


@pytest.mark.parametrize("every", ["1steps", "2steps"])
@pytest.mark.parametrize("dropout", [False, True])
def test_interrupted_inside_an_epoch_it_goes_on_from_the_last_step_that_was_saved(
    every, dropout, recipe, digits, tmp_path
):
    training = replace(recipe.training, checkpoint_every=every)
    model = replace(recipe.model, name="resnet_with_dropout", options={}) if dropout else recipe.model
    here, there = (Run(tmp_path / name, replace(recipe, model=model, training=training)) for name in ("here", "there"))
    go_on(here, digits)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 epochs are saved"):
        train_run(there, digits, Interrupt(1, 5))
    begun = []
    train_run(there, digits, lambda moment: begun.append((moment.state.epoch, moment.state.step)))
    assert begun[0] == (1, 5 if every == "1steps" else 4)
    assert_same_run(here.folder, there.folder)


def test_interrupted_again_and_again(recipe, digits, undisturbed, tmp_path):
    run = Run(tmp_path, recipe)
    for epochs in (1, 1, 2):
        interrupt(run, digits, epochs)
    go_on(run, digits)
    assert_same_run(tmp_path, undisturbed)


def test_a_run_moved_to_another_place_goes_on_the_same(interrupted, recipe, digits, undisturbed, tmp_path):
    elsewhere = Run(interrupted.folder.rename(tmp_path / "elsewhere"), recipe)
    go_on(elsewhere, digits)
    assert_same_run(elsewhere.folder, undisturbed)


def test_a_trained_run_that_was_not_measured_is_measured_and_not_trained(recipe, digits, undisturbed, tmp_path):
    def no_more(moment):
        assert moment.batch is None, "trained again"

    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    run = Run(folder, recipe)
    train_run(run, digits, no_more)
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("damage", [truncate, flip_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_last_checkpoint_is_replaced_by_the_one_before(damage, interrupted, digits, undisturbed, caplog):
    damage(interrupted.checkpoints / "last.ckpt")
    with caplog.at_level(logging.WARNING, "tracegrad"):
        go_on(interrupted, digits)
    assert len(caplog.messages) == 1
    assert "last.ckpt is damaged" in caplog.messages[0]
    assert "going on from previous.ckpt, after epoch " in caplog.messages[0]
    assert_same_run(interrupted.folder, undisturbed)


def test_nothing_left_to_go_on_from_is_an_error_that_touches_nothing(interrupted, digits):
    for name in ("last.ckpt", "previous.ckpt"):
        truncate(interrupted.checkpoints / name)
    before = {path: path.read_bytes() for path in interrupted.folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"no checkpoint is left .*last.ckpt is damaged .*previous.ckpt is damaged"):
        go_on(interrupted, digits)
    assert {path: path.read_bytes() for path in interrupted.folder.rglob("*") if path.is_file()} == before


def test_the_checkpoint_of_another_network_is_an_error(interrupted, tiny, digits, tmp_path):
    wide = replace(tiny, model=replace(tiny.model, options={**tiny.model.options, "width": 6}))
    other = Run(tmp_path / "wide", wide.only("gradient-scale", 0))
    train_run(other, digits)
    shutil.copy(other.checkpoints / "last.ckpt", interrupted.checkpoints)
    with pytest.raises(ValueError, match=r"last.ckpt is the checkpoint of another network: .*conv.weight: .*\[6, 1"):
        go_on(interrupted, digits)


@pytest.mark.parametrize("content", ["epoch,train_loss\n1,0.", "", None])
def test_a_damaged_log_is_written_again_from_the_checkpoint(content, interrupted, digits, undisturbed):
    metrics = interrupted.folder / "metrics.csv"
    metrics.unlink() if content is None else metrics.write_text(content)
    go_on(interrupted, digits)
    assert rows(interrupted.folder) == rows(undisturbed)


def test_a_disk_that_fills_up_keeps_what_was_saved(interrupted, digits, undisturbed):
    saved = {path: path.read_bytes() for path in interrupted.checkpoints.iterdir()}
    with full_disk(20_000), pytest.raises(OSError, match="cannot write .*: File too large"):
        go_on(interrupted, digits)
    assert {path: path.read_bytes() for path in interrupted.checkpoints.iterdir()} == saved
    go_on(interrupted, digits)
    assert_same_run(interrupted.folder, undisturbed)


def test_checkpoints_without_a_config_are_not_gone_on_from(interrupted, digits):
    (interrupted.folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"holds files, but no config.yaml of a run; choose another --output"):
        go_on(interrupted, digits)


def test_layers_that_draw_random_numbers_draw_the_same_after_a_resume(recipe, digits, tmp_path):
    options = replace(recipe.model, name="resnet_with_dropout", options={})
    here, there = (Run(tmp_path / name, replace(recipe, model=options)) for name in ("here", "there"))
    go_on(here, digits)
    interrupt(there, digits, 1)
    go_on(there, digits)
    assert_same_run(here.folder, there.folder)


def _wait_for_epoch(epoch, metrics, process):
    while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) <= epoch):
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_after_every_epoch_and_resumed_is_the_same_to_the_bit(tmp_path, capsys):
    command = ["train", "digits", *TINY, "--training.epochs=12", "--output"]
    assert main([*command, str(tmp_path / "undisturbed")]) == 0
    run = tmp_path / "killed/gradient-scale/seed-0"
    for epoch in range(1, 10):
        process = start(*command, str(tmp_path / "killed"))
        _wait_for_epoch(epoch, run / "metrics.csv", process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (run / "result.json").exists()
    assert main([*command, str(tmp_path / "killed")]) == 0
    assert "resumed after epoch" in capsys.readouterr().out
    assert_same_run(run, tmp_path / "undisturbed/gradient-scale/seed-0")
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_says_what_is_saved_and_how_to_go_on(number, code, recipe, tmp_path):
    options = ["digits", *TINY, "--training.epochs=10000", "--output", "my runs"]
    process = start("train", *options, "--no-resume", cwd=tmp_path)
    run = tmp_path / "my runs/gradient-scale/seed-0"
    _wait_for_epoch(2, run / "metrics.csv", process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    words = " ".join(f"'{word}'" if set(word) & set(" []") else word for word in options)
    said = re.fullmatch(
        r"tracegrad: interrupted \(gradient-scale, seed 0: (\d+) of 10000 epochs are saved\); "
        rf"go on with: tracegrad train {re.escape(words)}\n",
        err,
    )
    assert said, err
    _, checkpoint = latest_checkpoint(Run(run, recipe))
    assert checkpoint["epoch"] - int(said[1]) in (0, 1)  # 1: stopped between a checkpoint and the note of it
    assert not list(run.rglob(".*"))


def test_no_resume_begins_a_run_again(tmp_path, capsys):
    command = ["train", "digits", *TINY, "--training.epochs=1", "--output", str(tmp_path)]
    run = tmp_path / "gradient-scale/seed-0"
    assert main(command) == 0
    result = json.loads((run / "result.json").read_text())
    (run / "leftover").write_text("")
    assert main([*command, "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out
    assert (run / "leftover").exists()
    assert main([*command, "--no-resume"]) == 0
    assert "complete already" not in capsys.readouterr().out
    assert (run / "leftover").exists()  # not ours
    assert json.loads((run / "result.json").read_text())["test_accuracy"] == result["test_accuracy"]


def test_no_resume_begins_a_run_in_a_linked_folder_again(tmp_path, capsys):
    command = ["train", "digits", *TINY, "--training.epochs=1", "--output"]
    assert main([*command, str(tmp_path / "real")]) == 0
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/gradient-scale").symlink_to(tmp_path / "real/gradient-scale")
    before = (tmp_path / "real/gradient-scale/seed-0/result.json").stat().st_mtime_ns
    assert main([*command, str(tmp_path / "linked"), "--no-resume"]) == 0
    assert "complete already" not in capsys.readouterr().out
    assert (tmp_path / "real/gradient-scale/seed-0/result.json").stat().st_mtime_ns > before


def test_no_resume_keeps_what_is_there_when_it_cannot_begin(tmp_path):
    command = ["train", "digits", *TINY, "--training.epochs=1", "--output", str(tmp_path)]
    assert main(command) == 0
    assert main([*command, "--training.epochs=2", "--no-resume"]) == 2
    assert (tmp_path / "gradient-scale/seed-0/result.json").exists()
