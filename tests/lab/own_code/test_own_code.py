"""Networks, data, methods and their parts that a recipe names as `package.module:name`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tracegrad.cli import main
from tracegrad.lab.procedures.build import NEURONS
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.snn.models import MODELS

HERE = Path(__file__).parent
RECIPE = """
data: {{train_size: 300}}
model: {{name: "{network}", time_steps: 4, options: {options}}}
training: {{epochs: 1, batch_size: 25, optimizer: adam, learning_rate: 0.01, threads: 1}}
methods:
  baseline: {{alpha: 0}}
  gradient-scale: {{alpha: 0.1}}
seeds: [0, 1]
"""
PARTS = """
data: {name: "own_parts:stripes"}
model:
  name: resnet
  time_steps: 3
  options: {blocks: [1], width: 4, norm: "own_parts:quiet_norm"}
objective: "own_parts:smooth"
training: {epochs: 2, batch_size: 20, threads: 1}
methods:
  baseline: {alpha: 0}
  causal: {alpha: 0.5, relation: "own_parts:causal_alone", normalize: "own_parts:sign", scaling: "own_parts:boost"}
  gaussian: {alpha: 0.1, changes: {model: {neuron: {surrogate: "own_parts:gaussian"}}}}
  adaptive:
    alpha: 0.1
    changes: {model: {neuron: {name: "own_parts:adaptive", threshold: 0.4, options: {rise: 0.1}}}}
  untrained: {kind: "own_parts:Untrained", options: {factor: 0.5}}
seeds: [0]
"""


def _tracegrad(folder, *commands):
    """What command lines print, one after the other in a process of its own: modules are imported anew."""
    call = f"from tracegrad.cli import main\nfor each in {commands!r}: assert main(each) == 0; print('---', flush=True)"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", call], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("---\n"), done.stderr


@pytest.mark.parametrize(
    ("package", "network", "options", "pairs"),
    [
        ("spikingjelly", "own_spikingjelly:spikformer", "{image_size: 8}", 6),
        pytest.param("snntorch", "own_snntorch:network", "{}", 1, marks=pytest.mark.slow),
        pytest.param("norse", "own_norse:network", "{}", 1, marks=pytest.mark.slow),
    ],
)
def test_networks_of_other_libraries_go_through_a_whole_study(package, network, options, pairs, tmp_path):
    pytest.importorskip(package, reason=f"a network of {package}")
    module = shutil.copy(HERE / f"own_{package}.py", tmp_path)
    assert len(Path(module).read_text().splitlines()) < 40
    (tmp_path / "own.yaml").write_text(RECIPE.format(network=network, options=options))
    run = "runs/own/gradient-scale/seed-1"
    (shown, measured, *_), _ = _tracegrad(
        tmp_path,
        ["study", "own.yaml"],
        ["evaluate", run, "--time-steps", "[4]"],
        ["export", run],
        ["report", "runs/own", "--output", "again.html"],
    )
    assert shown.startswith(f"runs code that the recipe names: {network}, from {module}\n")
    assert "| gradient-scale | – |" in shown  # the recipe says nothing of its reset
    result = json.loads((tmp_path / run / "result.json").read_text())
    assert len(result["pairs"]) == pairs
    assert result["spikes_per_image"] > 0
    assert all(count > 0 for count in result["neurons_per_layer"].values())
    assert f"| 4 (trained) | {100 * result['test_accuracy']:.2f} |" in measured
    page = (tmp_path / "runs/own/report.html").read_text()
    assert "Relation and scale over training" in page
    assert "Left out" not in page
    assert (tmp_path / run / "weights.safetensors").is_file()


def test_every_part_of_a_recipe_may_be_code(tmp_path):
    for name in ("own_parts.py", "own_neuron.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "parts.yaml").write_text(PARTS)
    (shown, _), _ = _tracegrad(tmp_path, ["study", "parts.yaml"])
    results = {
        method: json.loads((tmp_path / f"runs/parts/{method}/seed-0/result.json").read_text())
        for method in ("baseline", "causal", "gaussian", "adaptive", "untrained")
    }
    assert shown.splitlines()[0].startswith("runs code that the recipe names: own_parts:stripes, from")
    assert results["baseline"]["classes"] == ["rows", "columns"]
    assert {"own_parts:smooth", "own_parts:quiet_norm"} < results["baseline"]["code_digests"].keys()
    assert {len(results[method]["pairs"]) for method in ("causal", "gaussian", "adaptive")} == {3}
    assert len({result["spikes_per_image"] for result in results.values()}) == 5
    assert results["untrained"]["epochs"] == 0
    # From another folder the modules beside the recipe are found, too; a changed one is told of.
    with (tmp_path / "own_parts.py").open("a") as file:
        file.write("\n# changed\n")
    (tmp_path / "elsewhere").mkdir()
    run = "../runs/parts/causal/seed-0"
    (shown, _), warned = _tracegrad(tmp_path / "elsewhere", ["evaluate", run])
    assert shown.startswith("runs code that the recipe names")
    assert "own_parts:boost is not as it was when" in warned
    # A report runs nothing, so the code may be gone.
    (tmp_path / "own_parts.py").unlink()
    (shown, _), _ = _tracegrad(tmp_path, ["report", "runs/parts"])
    assert "runs code" not in shown


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for registry in (MODELS, NEURONS):  # what is registered here is gone afterwards
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("code", "network", "message"),
    [
        ("", "own_none:network", "there is no module own_none in"),
        ("", "own_empty:network", "own_empty.py has no network"),
        ("network = 3", "own_number:network", "own_number:network: it is int, nothing that can be called"),
        ("import nothing_of_that_name", "own_import:network", "ModuleNotFoundError at .*own_import.py:1"),
        ("network = lambda: 3", "own_lambda:network", "own_lambda:network must return a torch.nn.Module, not int"),
        (
            "from torch.nn import Identity as network",
            "own_identity:network",
            r"makes .* of images .*; right is \[T, B, classes\], \[4, 2, 10\]",
        ),
        ("", "json:network", "json.* has no network"),
    ],
)
def test_what_is_wrong_with_own_code_is_one_line(code, network, message, folder, capsys):
    (folder / "own_empty.py").touch()
    if code:
        (folder / f"{network.partition(':')[0]}.py").write_text(code)
    (folder / "own.yaml").write_text(RECIPE.format(network=network, options="{}"))
    assert main(["train", "own.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model.name", "own network:f"), "unknown model 'own network:f'; .*, or your own as package.module:name"),
        (("--model.neuron.name", "mine"), "model.neuron.name must be lif or package.module:name, not 'mine'"),
        (("--model.neuron.name", "torch.nn:ReLU", "--model.neuron.leak", "0.5"), "torch.nn:ReLU takes no leak"),
    ],
)
def test_names_that_are_no_code(option, message, folder, capsys):
    assert main(["train", "digits", *option]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_code_of_another_folder_is_not_taken_for_the_recipes_own(folder, capsys):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "own_same.py").write_text(f"from torch.nn import Identity as network  # {name}")
        (folder / name / "own.yaml").write_text(RECIPE.format(network="own_same:network", options="{}"))
        assert main(["train", f"{name}/own.yaml"]) == 2
    assert "a module own_same from" in capsys.readouterr().err


def test_the_folder_of_the_code_is_the_recipes(tmp_path):
    (tmp_path / "own.yaml").write_text(RECIPE.format(network="own_bad:network", options="{}"))
    assert load_recipe(str(tmp_path / "own.yaml")).code == str(tmp_path)
    assert load_recipe("digits").code is None


def test_the_example_of_the_documentation(folder, capsys):
    page = (HERE.parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(import torch\nfrom torch import nn\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "own_of_page.py").write_text(code)
    (folder / "page.yaml").write_text(recipe.replace("own:", "own_of_page:"))
    assert main(["train", "page.yaml", "--training.epochs", "1"]) == 0, capsys.readouterr().err
    result = json.loads((folder / "runs/page/gradient-scale/seed-0/result.json").read_text())
    assert result["pairs"] == [["hidden", "lif2"]]
    assert result["test_accuracy"] > 0.2
