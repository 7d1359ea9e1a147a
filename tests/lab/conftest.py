import pytest

from tracegrad.lab.data import load
from tracegrad.lab.parsing import load_recipe

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
