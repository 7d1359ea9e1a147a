"""Killed at random moments and started again, a study ends as if nothing had happened, to the bit."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from lab.processes import ONE, TORCHRUN, run_study, start_study
from lab.same import assert_same_run

KILLS = 20
SHORT = """
extends: digits
data: {{train_size: {images}}}
model: {{options: {{blocks: [1], width: 4}}}}
training: {{epochs: {epochs}, threads: 1, checkpoint_every: 3steps, precision: {precision}}}
seeds: [0]
methods:
"""
TRAINING = SHORT.format(images=200, epochs=60, precision="bf16") + "  gradient-scale: {alpha: 0.1}\n"
TOGETHER = SHORT.format(images=330, epochs=40, precision="fp64") + "  gradient-scale: {alpha: 0.3}\n"
KINDS = (
    SHORT.format(images=200, epochs=12, precision="fp32")
    + """
  da-ssdp: {kind: synchrony}
  quantized: {kind: quantized, options: {levels: 3, start: 1.0}}
  relu: {kind: relu}
  qcfs: {kind: qcfs, options: {levels: 4, start: 1.0}}
  calibration-light: {kind: calibration, source: relu, options: {mode: light, images: 100}}
  calibration-advanced: {kind: calibration, source: relu, options: {mode: advanced, images: 100}}
  tandem-offline: {kind: tandem, source: relu, options: {mode: offline}}
  tandem-online: {kind: tandem, source: relu, options: {mode: online}}
  stdp: {kind: stdp, options: {neurons: 30, assign_images: 100}, changes: {model: {time_steps: 150}}}
"""
)


def newest(folder):
    times = [0.0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary file that has got its name
            times.append(path.stat().st_mtime)
    return max(times)


def kill_all(output):
    """Kills every process that has the folder in its command line, so those that a process started, too."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if str(output).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        pytest.param(ONE, [], TRAINING, id="training"),
        pytest.param(ONE, [], KINDS, id="kinds"),
        pytest.param(TORCHRUN, ["--training.devices", "2"], TOGETHER, id="two processes"),
    ],
)
def test_killed_at_twenty_random_moments_and_started_again_is_the_same_to_the_bit(command, options, text, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run_study(command, tmp_path, undisturbed.name, *options, timeout=1200)
    moments, kills = random.Random(0), 0
    while kills < KILLS:
        before, process = newest(killed), start_study(command, tmp_path, killed.name, *options)
        while process.poll() is None and newest(killed) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 2))
        if process.poll() is not None:
            break
        kill_all(killed)
        process.communicate()
        kills += 1
    assert kills >= KILLS / 2, f"the study was over after {kills} kills: {process.communicate()}"
    run_study(command, tmp_path, killed.name, *options, timeout=1200)
    folders = sorted(path.parent.relative_to(undisturbed) for path in undisturbed.rglob("config.yaml"))
    assert len(folders) == text.count("\n  ")
    for folder in folders:
        assert_same_run(killed / folder, undisturbed / folder)
