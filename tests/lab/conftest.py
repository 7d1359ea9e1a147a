import shutil

import pytest

from tracegrad.lab.data import load
from tracegrad.lab.parsing import load_recipe
from tracegrad.lab.runs import Run
from tracegrad.lab.training import train_run

TINY = {
    "--training.epochs": "2",
    "--training.threads": "1",
    "--training.batch_size": "32",
    "--data.train_size": "200",
    "--model.options.width": "4",
    "--model.options.blocks": "[1]",
    "--seeds": "[0,1]",
}


@pytest.fixture(scope="session")
def tiny():
    """The digits recipe on a subset, with a network that trains in a second."""
    return load_recipe("digits", [part for option in TINY.items() for part in option])


@pytest.fixture(scope="session")
def digits(tiny):
    return load(tiny.data)


@pytest.fixture(scope="session")
def complete(tiny, digits, tmp_path_factory):
    """The folder of a complete run, to read only."""
    run = Run(tmp_path_factory.mktemp("complete") / "seed-0", tiny.only("gradient-scale", 0))
    train_run(run, digits)
    return run.folder


@pytest.fixture
def finished(complete, tmp_path):
    """A copy of a complete run, to do damage to."""
    return shutil.copytree(complete, tmp_path / "seed-0")
