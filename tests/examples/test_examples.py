"""The examples run as a stranger would run them."""

import copy
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import tracegrad as tg
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.procedures.own_code import register_code
from tracegrad.lab.recipe.reading import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*words, folder):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_digits_needs_no_laboratory_and_compares_pairs(tmp_path):
    path = EXAMPLES / "train_digits.py"
    assert len(path.read_text().splitlines()) <= 60
    assert "tracegrad.lab" not in path.read_text()
    shown = run(str(path), "1", folder=tmp_path)
    assert (
        len(re.findall(r"^seed \d: baseline [\d.]+%, scaled [\d.]+%, difference [+-][\d.]+ points$", shown, re.M)) == 3
    )


def test_own_network_study_trains_in_a_copy(tmp_path):
    pytest.importorskip("spikingjelly", reason="its network is SpikingJelly's")
    folder = shutil.copytree(EXAMPLES / "own_network_study", tmp_path / "own")
    assert load_recipe(str(folder / "study.yaml")).code == str(folder)
    options = ["--seeds", "[0]", "--training.epochs", "1", "--data.train_size", "200"]
    shown = run("-m", "tracegrad", "study", str(folder / "study.yaml"), *options, folder=tmp_path)
    assert "| gradient-scale | – |" in shown


def test_the_recipe_of_spikformer_on_cifar10_names_the_papers_network(monkeypatch):
    pytest.importorskip("spikingjelly", reason="its network is SpikingJelly's")
    recipe = load_recipe(str(EXAMPLES / "own_network_study" / "cifar10.yaml"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_spikformer", raising=False)
    register_code(recipe)
    model = build_model(recipe.model, num_classes=10, in_channels=3)
    width, hidden, stem = 384, 4 * 384, (3, 48, 96, 192, 384, 384)
    by_hand = sum(9 * before * after + 2 * after for before, after in pairwise(stem)) + 10 * width + 10
    by_hand += 4 * (4 * (width * width + 2 * width) + 2 * width * hidden + 2 * (width + hidden))
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand
    biases = 4 * (2 * width + hidden)  # of projection and MLP, before norms: SpikingJelly leaves them out
    assert round((by_hand + biases) / 1e6, 2) == 9.32  # the paper's table of CIFAR-10
    attachment = tg.attach(model, torch.zeros(1, 3, 32, 32))
    names = [name for name, _ in attachment.pairs]
    for block in range(4):
        assert sum(f"blocks.{block}." in name for name in names) == 4, names  # qkv, projection, and two of the MLP


def test_the_notebook_prints_and_draws_what_it_holds(tmp_path):
    pytest.importorskip("spikingjelly", reason="its network is SpikingJelly's")
    stored = json.loads((EXAMPLES / "method.ipynb").read_text(encoding="utf-8"))
    empty = copy.deepcopy(stored)
    for cell in empty["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    (tmp_path / "method.ipynb").write_text(json.dumps(empty))
    run(str(EXAMPLES / "run_notebook.py"), "method.ipynb", folder=tmp_path)
    again = json.loads((tmp_path / "method.ipynb").read_text(encoding="utf-8"))
    for ours, theirs in zip(stored["cells"], again["cells"], strict=True):
        outputs = [[each.get("text", "a picture") for each in cell.get("outputs", [])] for cell in (ours, theirs)]
        assert outputs[0] == outputs[1]
    drawn = [each for cell in again["cells"] for each in cell.get("outputs", []) if "data" in each]
    assert len(drawn) == 3


def test_the_documentation_shows_the_notebook():
    hook = runpy.run_path(str(EXAMPLES.parent / "docs" / "notebook.py"))
    page = hook["_page"](EXAMPLES / "method.ipynb")
    assert page.startswith("# The method in pictures")
    assert page.count("data:image/png;base64,") == 3
    assert "```text\ngradient scaling of 1 of 3 synapses" in page
