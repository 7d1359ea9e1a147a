import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from tracegrad.lab import train as loop
from tracegrad.lab.runs.checkpoints import read_checkpoint
from tracegrad.lab.runs.run import Run
from tracegrad.lab.runs.state import RELATIONS
from tracegrad.lab.studies.train_run import train_run


def train(tiny, digits, folder, method):
    run = Run(folder, tiny.only(method, 0))
    return run, train_run(run, digits)


@pytest.fixture(scope="module")
def probed(tiny, digits, tmp_path_factory):
    return train(tiny, digits, tmp_path_factory.mktemp("probed"), "gradient-scale")


@pytest.fixture(scope="module")
def rows(probed):
    with (probed[0].folder / "relations.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_is_the_same_to_the_bit_without_it(tiny, digits, tmp_path, probed, monkeypatch):
    run, result = probed
    monkeypatch.setattr(loop, "probe", lambda *_: [])
    alone, expected = train(tiny, digits, tmp_path, "gradient-scale")
    for name in ("weights.ckpt", "last.ckpt"):
        ours, theirs = (read_checkpoint(each.checkpoints / name)["model"] for each in (run, alone))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    for measured in ("test_accuracy", "spikes_per_layer", "validation_accuracy"):
        assert result[measured] == expected[measured]


def test_a_row_per_epoch_synapse_and_quantity(probed, rows):
    synapses = [name for name, _ in probed[1]["pairs"]]
    assert tuple(rows[0]) == RELATIONS
    found = [(row["epoch"], row["synapse"], row["quantity"]) for row in rows]
    assert found == [
        (epoch, name, quantity) for epoch in "12" for name in synapses for quantity in ("relation", "scale")
    ]


def test_the_scale_follows_from_the_relation(rows):
    for relation, scale in zip(rows[::2], rows[1::2], strict=True):
        for name in RELATIONS[3:]:
            assert float(scale[name]) == pytest.approx(0.1 * float(relation[name]) + 0.9, abs=1e-5)
    assert all(0 <= float(row["q05"]) <= float(row["q50"]) <= float(row["q95"]) <= 1 for row in rows)


def test_arrays_of_the_last_epoch(probed):
    run, result = probed
    with np.load(run.folder / "probe.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert dict(zip(arrays["layers"], arrays["neurons"], strict=True)).keys() == result["spikes_per_layer"].keys()
    for synapse, _ in result["pairs"]:
        assert arrays[f"{synapse}/relation"].shape == (4, 4)
        assert arrays[f"{synapse}/relation"].max() <= 1
        assert arrays[f"{synapse}/pre_spikes"].shape[0] == 4
        assert arrays[f"{synapse}/post_spikes"].shape[0] == 4


def test_a_baseline_has_spikes_but_no_relation(tiny, digits, tmp_path):
    run, _ = train(tiny, digits, tmp_path, "baseline")
    assert not (run.folder / "relations.csv").exists()
    with np.load(run.folder / "probe.npz", allow_pickle=False) as file:
        assert "stages.0.0.conv1/pre_spikes" in file
        assert "stages.0.0.conv1/relation" not in file


def test_rows_go_into_checkpoints(probed, rows):
    kept = read_checkpoint(probed[0].checkpoints / "last.ckpt")["state"]["relations"]
    assert [{name: str(value) for name, value in row.items()} for row in kept] == rows


@pytest.mark.parametrize(
    ("options", "quantities"),
    [
        ({"apply": "event"}, {"relation", "scale"}),
        ({"control": {"mean_scale": {}}}, set()),
    ],
    ids=["event", "mean_scale"],
)
def test_what_has_no_relation_of_its_own(options, quantities, tiny, digits, tmp_path):
    method = replace(tiny.methods["gradient-scale"], **options)
    names = {name for name, _ in train(tiny, digits, tmp_path / "plain", "gradient-scale")[1]["pairs"]}
    if "control" in options:
        method = replace(method, control={"mean_scale": dict.fromkeys(names, 0.9)})
    run, result = train(replace(tiny, methods={"mine": method}), digits, tmp_path / "mine", "mine")
    assert {name for name, _ in result["pairs"]} == names
    file = run.folder / "relations.csv"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = {row["quantity"] for row in csv.DictReader(lines)}
    assert found == quantities


def test_the_scale_is_that_of_the_schedule(tiny, digits, tmp_path):
    """Half a cosine has come to 0 after the last epoch: no gradient is scaled any longer."""
    method = replace(tiny.methods["gradient-scale"], alpha_schedule="cosine")
    run, _ = train(replace(tiny, methods={"mine": method}), digits, tmp_path, "mine")
    with (run.folder / "relations.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "scale"]
    assert all(float(row["q95"]) == 1.0 for row in rows if row["epoch"] == "2")
    assert any(float(row["q05"]) < 1.0 for row in rows if row["epoch"] == "1")
