import io

import pytest
from rich.console import Console

from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.writing import write_study
from tracegrad.lab.runs.run import plan
from tracegrad.lab.studies.study import run_all

SMALL = """
extends: comparison/digits
name: comparison
data: {train_size: 300}
model: {options: {blocks: [1], width: 4}}
training: {epochs: 2, batch_size: 10}
methods:
  baseline:
  tet-gradient-scale: {alpha: 0.1, changes: {objective: tet}}
  tebn: {changes: {model: {options: {norm: tebn}}}}
  qcfs: {kind: qcfs, options: {start: 2.0}}
  light: {kind: calibration, source: relu, changes: {model: {time_steps: 16}}}
  advanced: {kind: calibration, source: relu, options: {mode: advanced}, changes: {model: {time_steps: 16}}}
  offline: {kind: tandem, source: relu, changes: {model: {time_steps: 8}}}
  online: {kind: tandem, source: relu, options: {mode: online}, changes: {model: {time_steps: 8}}}
  relu: {kind: relu}
  quantized: {kind: quantized, options: {start: 2.0}}
  synchrony: {kind: synchrony, options: {warm_up: 0.5, a_plus: 0.05}}
  stdp: {kind: stdp, options: {neurons: 30, assign_images: 100}, changes: {model: {time_steps: 150}}}
seeds: [0]
"""


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """A recipe with a method of every kind."""
    path = tmp_path_factory.mktemp("recipe") / "comparison.yaml"
    path.write_text(SMALL)
    return load_recipe(str(path))


@pytest.fixture(scope="session")
def study(comparison, tmp_path_factory):
    """The study of all kinds, really trained; not to be written to."""
    folder = tmp_path_factory.mktemp("study") / "comparison"
    run_all(plan(comparison, folder), Console(file=io.StringIO(), width=200))
    write_study(comparison, folder)
    return folder
