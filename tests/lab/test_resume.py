import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lab.data.archives import flip_bit, truncate
from lab.disk import full_disk
from lab.same import assert_same_run, rows
from tracegrad.cli import main
from tracegrad.lab.probe import Probe
from tracegrad.lab.runs import Run
from tracegrad.lab.training import train_run
from tracegrad.snn.models import register_model, resnet

EPOCHS = 3
TINY = [
    "--training.threads=1",
    "--data.train_size=200",
    "--model.options.width=4",
    "--model.options.blocks=[1]",
]


class Interrupt(Callback):
    """Ctrl-C at the first batch after a number of epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epochs:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def recipe(tiny):
    return replace(tiny, training=replace(tiny.training, epochs=EPOCHS), seeds=[0]).only("gradient-scale", 0)


@pytest.fixture(scope="module")
def undisturbed(recipe, digits, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("undisturbed"), recipe)
    train_run(run, digits, [Probe(run)])
    return run.folder


def interrupt(run, digits, epochs):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=f"gradient-scale, seed 0: {epochs} of {EPOCHS} epochs are saved"):
        train_run(run, digits, [Probe(run), Interrupt(epochs)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not run.complete


@pytest.fixture
def interrupted(recipe, digits, tmp_path):
    """A run with two epochs behind it."""
    run = Run(tmp_path / "run", recipe)
    interrupt(run, digits, 2)
    return run


def go_on(run, digits):
    train_run(run, digits, [Probe(run)])


@pytest.mark.parametrize("epochs", range(EPOCHS))
def test_interrupted_after_any_epoch_and_resumed_is_the_same_to_the_bit(epochs, recipe, digits, undisturbed, tmp_path):
    run = Run(tmp_path, recipe)
    interrupt(run, digits, epochs)
    assert (run.checkpoints / "last.ckpt").exists() == (epochs > 0)
    go_on(run, digits)
    assert_same_run(tmp_path, undisturbed)


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
    class NoMore(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pytest.fail("trained again")

    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    run = Run(folder, recipe)
    train_run(run, digits, [NoMore(), Probe(run)])
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("damage", [truncate, flip_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_last_checkpoint_is_replaced_by_the_best_one(damage, interrupted, digits, undisturbed, caplog):
    damage(interrupted.checkpoints / "last.ckpt")
    with caplog.at_level(logging.WARNING, "tracegrad"):
        go_on(interrupted, digits)
    assert len(caplog.messages) == 1
    assert "last.ckpt is damaged" in caplog.messages[0]
    assert "going on from best.ckpt, epoch " in caplog.messages[0]
    assert_same_run(interrupted.folder, undisturbed)


def test_nothing_left_to_go_on_from_is_an_error_that_touches_nothing(interrupted, digits):
    for name in ("last.ckpt", "best.ckpt"):
        truncate(interrupted.checkpoints / name)
    before = {path: path.read_bytes() for path in interrupted.folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"no checkpoint is left .*last.ckpt is damaged .*best.ckpt is damaged"):
        go_on(interrupted, digits)
    assert {path: path.read_bytes() for path in interrupted.folder.rglob("*") if path.is_file()} == before


def test_the_checkpoint_of_another_network_is_an_error(interrupted, tiny, digits, tmp_path):
    wide = replace(tiny, model=replace(tiny.model, options={**tiny.model.options, "width": 6}))
    other = Run(tmp_path / "wide", wide.only("gradient-scale", 0))
    train_run(other, digits)
    shutil.copy(other.checkpoints / "last.ckpt", interrupted.checkpoints)
    with pytest.raises(ValueError, match=r"last.ckpt is the checkpoint of another network: conv.weight is \[6, 1"):
        go_on(interrupted, digits)


@pytest.mark.parametrize("content", ["epoch,train_loss\n1,0.", "", None])
def test_a_damaged_log_is_written_again_from_the_checkpoint(content, interrupted, digits, undisturbed):
    metrics = interrupted.folder / "metrics.csv"
    metrics.unlink() if content is None else metrics.write_text(content)
    go_on(interrupted, digits)
    assert rows(interrupted.folder) == rows(undisturbed)


def test_a_disk_that_fills_up_keeps_what_was_saved(interrupted, digits, undisturbed):
    saved = {path: path.read_bytes() for path in interrupted.checkpoints.iterdir()}
    with full_disk(20_000), pytest.raises(OSError, match="cannot write .*.ckpt: File too large"):
        go_on(interrupted, digits)
    assert {path: path.read_bytes() for path in interrupted.checkpoints.iterdir()} == saved
    go_on(interrupted, digits)
    assert_same_run(interrupted.folder, undisturbed)


def test_checkpoints_without_a_config_are_not_gone_on_from(interrupted, digits):
    (interrupted.folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"holds a run without its config.yaml; remove the folder"):
        go_on(interrupted, digits)


def test_layers_that_draw_random_numbers_draw_the_same_after_a_resume(recipe, digits, tmp_path):
    @register_model
    def resnet_with_dropout(num_classes=10, in_channels=3, width=4, time_steps=4, neuron=None):
        return torch.nn.Sequential(
            resnet(num_classes, in_channels, (1,), width, time_steps, neuron=neuron), torch.nn.Dropout(0.2)
        )

    options = replace(recipe.model, name="resnet_with_dropout", options={})
    here, there = (Run(tmp_path / name, replace(recipe, model=options)) for name in ("here", "there"))
    go_on(here, digits)
    interrupt(there, digits, 1)
    go_on(there, digits)
    assert_same_run(here.folder, there.folder)


def _start(*arguments, **options):
    command = [sys.executable, "-m", "tracegrad", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def _wait_for_epoch(epoch, metrics, process):
    while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) <= epoch):
        time.sleep(0.01)


def _killed_and_resumed(folder, epochs, kills):
    """Kills a process after each of some epochs, each time another one, and lets the last one finish."""
    command = ["train", "digits", *TINY, f"--training.epochs={epochs}", "--output", str(folder)]
    run = folder / "gradient-scale" / "seed-0"
    for epoch in kills:
        process = _start(*command)
        _wait_for_epoch(epoch, run / "metrics.csv", process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (run / "result.json").exists()
    assert main(command) == 0
    return run


def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, capsys):
    assert main(["train", "digits", *TINY, "--training.epochs=12", "--output", str(tmp_path / "undisturbed")]) == 0
    run = _killed_and_resumed(tmp_path / "killed", 12, [3])
    assert "resumed after epoch" in capsys.readouterr().out
    assert_same_run(run, tmp_path / "undisturbed/gradient-scale/seed-0")
    assert not list(run.rglob(".*"))


@pytest.mark.slow
def test_killed_after_every_epoch_and_resumed_is_the_same_to_the_bit(tmp_path):
    assert main(["train", "digits", *TINY, "--training.epochs=12", "--output", str(tmp_path / "undisturbed")]) == 0
    run = _killed_and_resumed(tmp_path / "killed", 12, range(1, 10))
    assert_same_run(run, tmp_path / "undisturbed/gradient-scale/seed-0")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_says_what_is_saved_and_how_to_go_on(number, code, tmp_path):
    options = ["digits", *TINY, "--training.epochs=10000", "--output", "my runs"]
    process = _start("train", *options, "--no-resume", cwd=tmp_path)
    run = tmp_path / "my runs/gradient-scale/seed-0"
    _wait_for_epoch(2, run / "metrics.csv", process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
    words = " ".join(f"'{word}'" if set(word) & set(" []") else word for word in options)
    assert err == (
        f"tracegrad: interrupted (gradient-scale, seed 0: {saved} of 10000 epochs are saved); "
        f"go on with: tracegrad train {words}\n"
    )
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
    assert not (run / "leftover").exists()
    assert json.loads((run / "result.json").read_text())["test_accuracy"] == result["test_accuracy"]


def test_no_resume_keeps_what_is_there_when_it_cannot_begin(tmp_path):
    command = ["train", "digits", *TINY, "--training.epochs=1", "--output", str(tmp_path)]
    assert main(command) == 0
    assert main([*command, "--training.epochs=2", "--no-resume"]) == 2
    assert (tmp_path / "gradient-scale/seed-0/result.json").exists()
