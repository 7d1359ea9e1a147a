import shutil
from dataclasses import replace

import pytest

from tracegrad.lab.data import load
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.writing import write_study
from tracegrad.lab.runs.run import Run, plan
from tracegrad.lab.studies.train_run import train_run

TINY = {
    "training.epochs": "2",
    "training.threads": "1",
    "training.batch_size": "32",
    "data.train_size": "200",
    "model.options.width": "4",
    "model.options.blocks": "[1]",
    "seeds": "[0,1]",
}


@pytest.fixture(scope="session")
def tiny():
    """The digits recipe on a subset, with a network that trains in a second."""
    return load_recipe("digits", TINY)


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


@pytest.fixture(scope="session")
def recipe(tiny):
    return replace(tiny, name="tiny", methods={"baseline": Method(alpha=0.0), "gradient-scale": Method()})


@pytest.fixture(scope="session")
def trained(recipe, digits, tmp_path_factory):
    """A study of two methods and two seeds, really trained; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    for run in plan(recipe, folder):
        train_run(run, digits)
    write_study(recipe, folder)
    return folder


@pytest.fixture
def study(trained, tmp_path):
    """A copy of the trained study to do damage to."""
    return shutil.copytree(trained, tmp_path / "tiny", ignore=shutil.ignore_patterns("checkpoints"))
