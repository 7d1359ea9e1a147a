"""sync=True in two processes: equal to one on the joint batch, and an error on both where they do not do the same."""

import time as clock
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from architecture import assert_equal_gradients

from attaching import processes
from reference import assert_differ

LIMIT = 150
"""Seconds for all scenarios; a process that hangs is ended then."""


def run(work: Callable[[int, str], None], folder: Path) -> Path:
    spawned = mp.spawn(work, (str(folder),), nprocs=2, join=False)
    end = clock.monotonic() + LIMIT
    try:
        while not spawned.join(timeout=1):
            assert clock.monotonic() < end, f"after {LIMIT} s processes hang; they have written {files_in(folder)}"
    finally:
        for process in spawned.processes:
            process.kill()
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(processes.same_on_both, tmp_path_factory.mktemp("same"))


@pytest.mark.parametrize("number", range(len(processes.CASES)), ids=["-".join(case) for case in processes.CASES])
def test_both_equal_one_process_on_the_joint_batch(number: int, same: Path) -> None:
    form, _, option, time = processes.CASES[number]
    expected = processes.gradients(form, option, time)
    for rank in (0, 1):
        found = torch.load(same / f"{number}-{rank}.pt", weights_only=True)
        assert_equal_gradients(found, expected, 1e-10)


@pytest.mark.parametrize("option", processes.OPTIONS)
def test_the_joint_batch_is_another_case_than_the_mean_of_both(option: str) -> None:
    """Guards the comparison, which would hold without sync if R were the same everywhere, and for all options."""
    joint = processes.gradients("at once", option, "mean")
    own = [processes.gradients("at once", option, "mean", rank) for rank in (0, 1)]
    assert_differ({"b.weight": joint["b.weight"]}, {"b.weight": (own[0]["b.weight"] + own[1]["b.weight"]) / 2})
    if option != "all":
        assert_differ(
            {"b.weight": joint["b.weight"]}, {"b.weight": processes.gradients("at once", "all", "mean")["b.weight"]}
        )


@pytest.fixture(scope="module")
def different(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(processes.different_on_each, tmp_path_factory.mktemp("different"))


@pytest.mark.parametrize("number", range(len(processes.DIFFERENT)), ids=processes.DIFFERENT)
def test_another_thing_on_each_is_an_error_on_both_at_once(number: int, different: Path) -> None:
    for rank in (0, 1):
        seconds, _, told = (different / f"{number}-{rank}.txt").read_text().partition("\n")
        assert told.startswith("sync=True adds up the relations of all processes, but they are not at the same place:")
        assert "process 0 at " in told
        assert "process 1 at " in told
        assert "the same layers over the same number of steps, or attach with sync=False" in told
        assert float(seconds) < 20, f"process {rank} took {seconds} s to tell"


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(processes.unequal_steps, tmp_path_factory.mktemp("unequal"))


@pytest.mark.parametrize("time", ["mean", "final"])
def test_another_number_of_steps_is_a_shorter_sequence(time: str, unequal: Path) -> None:
    """With all steps at once R is one sum whatever T: that of the joint batch in which the missing step is masked."""
    expected = processes.unequal_gradients(time, None)
    for rank in (0, 1):
        found = torch.load(unequal / f"{time}-{rank}.pt", weights_only=True)
        assert_equal_gradients(found, expected, 1e-10)
