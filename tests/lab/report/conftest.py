import shutil
from dataclasses import replace

import pytest

from tracegrad.lab.probe import Probe
from tracegrad.lab.recipe import Method
from tracegrad.lab.runs import plan
from tracegrad.lab.study import summarize_study
from tracegrad.lab.training import train_run


@pytest.fixture(scope="session")
def recipe(tiny):
    return replace(tiny, name="tiny", methods={"baseline": Method(alpha=0.0), "gradient-scale": Method()})


@pytest.fixture(scope="session")
def trained(recipe, digits, tmp_path_factory):
    """A study of two methods and two seeds, really trained; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    for run in plan(recipe, folder):
        train_run(run, digits, [Probe(run)])
    summarize_study(recipe, folder)
    return folder


@pytest.fixture
def study(trained, tmp_path):
    """A copy of the trained study to do damage to."""
    return shutil.copytree(trained, tmp_path / "tiny", ignore=shutil.ignore_patterns("checkpoints"))
