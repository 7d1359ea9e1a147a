"""One study, many processes: each run is trained once, by whoever is free."""

import io
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from lab.processes import start
from lab.same import assert_same_run
from tracegrad.cli import main
from tracegrad.lab.runs.claim import claim
from tracegrad.lab.runs.run import Run, plan
from tracegrad.lab.studies.study import run_all

SMALL = [
    "--training.threads=1",
    "--data.train_size=100",
    "--model.options.width=2",
    "--model.options.blocks=[1]",
]


def start_study(folder, *options, task=None):
    """A process of its own; with `task`, as that task of a Slurm array would be."""
    slurm = {} if task is None else {"SLURM_JOB_ID": f"70{task}", "SLURM_ARRAY_JOB_ID": "70", "SLURM_NTASKS": "1"}
    slurm |= {} if task is None else {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_PROCID": "0", "SLURM_JOB_NAME": "study"}
    return start("study", "digits", *SMALL, "--output", folder, *options, **slurm)


def outcomes(processes):
    """What each process showed, by line; all of them must end well."""
    shown = [process.communicate(timeout=600) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, shown, strict=True)] == [
        (0, "") for _ in processes
    ]
    return [out.splitlines() for out, _ in shown]


def trainings(lines):
    """Labels of the runs that were trained, not taken over whole."""
    return [
        line.partition(":")[0]
        for line in lines
        if ", seed " in line and ": test " in line and "another process" not in line and "complete" not in line
    ]


def wait_for(path, process):
    while process.poll() is None and not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize(("processes", "seeds", "epochs"), [(3, 3, 2), pytest.param(8, 12, 3, marks=pytest.mark.slow)])
def test_each_run_of_a_slurm_array_is_trained_once_and_all_end_with_the_same_table(processes, seeds, epochs, tmp_path):
    options = [f"--training.epochs={epochs}", f"--seeds={list(range(seeds))}"]
    shown = outcomes([start_study(tmp_path / "shared", *options, task=task) for task in range(processes)])
    trained = [label for lines in shown for label in trainings(lines)]
    expected = [f"{method}, seed {seed}" for method in ("baseline", "gradient-scale") for seed in range(seeds)]
    assert sorted(trained) == sorted(expected)
    tables = [[line for line in lines if line.startswith("|")] for lines in shown]
    assert all(table == tables[0] for table in tables)
    assert main(["study", "digits", *SMALL, "--output", str(tmp_path / "alone"), *options]) == 0
    assert (tmp_path / "alone/table.csv").read_text() == (tmp_path / "shared/table.csv").read_text()
    for run in (tmp_path / "alone").glob("*/seed-*"):
        assert_same_run(tmp_path / "shared" / run.relative_to(tmp_path / "alone"), run)


@pytest.mark.slow
def test_a_killed_process_is_replaced(tmp_path):
    options = ["--training.epochs=40", "--seeds=[0]"]
    first = start_study(tmp_path, *options)
    wait_for(tmp_path / "baseline/seed-0/checkpoints/last.ckpt", first)
    second = start_study(tmp_path, *options)
    wait_for(tmp_path / "gradient-scale/seed-0/config.yaml", second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (lines,) = outcomes([second])
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*/seed-0/result.json")]
    assert [result["epochs"] for result in results] == [40, 40]
    assert "gradient-scale, seed 0" in trainings(lines)


@pytest.fixture
def run(tiny, tmp_path):
    return Run(tmp_path / "study" / "baseline" / "seed-0", tiny.only("baseline", 0))


@pytest.mark.parametrize(("written", "told"), [(b"host, \xff 7\n", "host, \ufffd 7"), (b"", "another process")])
def test_a_lock_that_says_nothing_readable_is_told_all_the_same(written, told, run):
    path = run.folder.with_name(".seed-0.lock")
    path.parent.mkdir(parents=True)
    with FileLock(path):
        path.write_bytes(written)
        with claim(run) as holder:
            assert holder == told


def test_a_claim_says_who_holds_it_and_ends_with_its_block(run):
    with claim(run) as holder:
        assert holder is None
        child = os.fork()
        if child == 0:  # a child that inherits the lock neither holds nor releases it
            with claim(run) as mine:
                os._exit(0 if mine and f"process {os.getppid()}" in mine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with claim(run) as holder:
        assert holder is None


def test_without_waiting_what_others_train_is_left(run, tiny, tmp_path):
    runs = plan(replace(tiny, seeds=[0]), tmp_path / "study")
    console = Console(file=io.StringIO(), width=200)
    child = os.fork()
    if child == 0:
        with claim(run):
            Path(tmp_path / "held").touch()
            time.sleep(600)
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.01)
        assert run_all(runs, console, wait=False) == [runs[0]]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert [run.complete for run in runs] == [False, True]
    assert run_all(runs, console) == []
    assert all(run.complete for run in runs)


def test_a_file_system_that_refuses_locks_is_named(run, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match=r"^cannot lock .*\.seed-0\.lock: .*; choose an --output"), claim(run):
        pass
