import json
from dataclasses import replace

import nir
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from tracegrad.adapters.nir import from_nir
from tracegrad.lab.export import export_run
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.train_run import train_run


def test_the_file_rebuilds_the_network_with_the_same_outputs(complete, digits, tmp_path):
    path = export_run(complete, tmp_path / "network.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    (tmp_path / "recipe.yaml").write_text(metadata["recipe"])
    classes, (channels, *_) = json.loads(metadata["classes"]), json.loads(metadata["image_shape"])
    network = build_model(load_recipe(str(tmp_path / "recipe.yaml")).model, len(classes), channels).eval()
    network.load_state_dict(load_file(path))
    images = digits.test.images[:20].float()
    with torch.no_grad():
        assert torch.equal(network(images), TrainedRun.read(complete).network()(images))


def test_metadata_say_what_the_weights_are(complete, tmp_path):
    with safe_open(export_run(complete, tmp_path / "file"), "pt") as file:
        metadata = file.metadata()
    result = json.loads((complete / "result.json").read_text())
    assert yaml.safe_load(metadata["recipe"])["methods"].keys() == {"gradient-scale"}
    assert float(metadata["test_accuracy"]) == result["test_accuracy"]
    assert metadata["tracegrad"] == result["versions"]["tracegrad"]


def test_the_graph_gives_the_outputs_of_the_network(tiny, digits, tmp_path):
    hard = replace(tiny, model=replace(tiny.model, neuron=replace(tiny.model.neuron, reset="hard")))
    run = Run(tmp_path / "seed-0", hard.only("gradient-scale", 0))
    train_run(run, digits)
    path = export_run(run.folder, to="nir")
    assert path == run.folder / "network.nir"
    images = digits.test.images[:20].float() / 8 - 1
    network = TrainedRun.read(run.folder).network()
    with torch.no_grad():
        read = from_nir(path)(images.expand(network.time_steps, *images.shape))
        torch.testing.assert_close(read, network(images))
    metadata = nir.read(path).metadata
    assert json.loads(metadata["classes"]) == list(digits.classes)


def test_a_soft_reset_is_no_graph(finished):
    with pytest.raises(ValueError, match=r"'neuron' \(LIF\) has a soft reset, and NIR's neurons reset hard"):
        export_run(finished, to="nir")
    assert not (finished / "network.nir").exists()


def test_the_run_is_the_place_by_default(finished):
    assert export_run(finished) == finished / "weights.safetensors"
    assert (finished / "weights.safetensors").is_file()


def test_an_interrupted_run_is_refused(finished):
    (finished / "result.json").unlink()
    with pytest.raises(ValueError, match=r"seed-0 holds an interrupted run; start it again"):
        export_run(finished)
    assert not (finished / "weights.safetensors").exists()
