"""Two processes, each with half of the batch, against one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from contract.cases import Case
from contract.processes import BATCH, CASES, MODES, name_of, scaled_gradients, work
from reference import assert_differ, assert_same

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("time", "sync"), MODES, ids=lambda value: {True: "sync", False: "apart"}.get(value, value))
def test_synchronised_processes_equal_one_and_others_the_mean_of_their_own(
    case: Case, time: str, sync: bool, folder: Path
) -> None:
    x = case.frames(batch=BATCH)
    joint = scaled_gradients(case, x, time)
    halves = [scaled_gradients(case, half, time) for half in x.chunk(2, 1)]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in joint}
    assert_differ(mean, joint)
    for rank in (0, 1):
        got = torch.load(folder / name_of(case, rank), weights_only=True)
        assert_same(got[time, sync], joint if sync else mean, 1e-12)
