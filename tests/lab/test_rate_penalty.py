"""A recipe's penalty on the firing rate."""

import csv
from dataclasses import replace

import pytest

from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.train_run import train_run


def test_a_penalty_lowers_the_spikes_and_is_in_the_loss(tiny, digits, tmp_path):
    spikes, losses = [], []
    for penalty in (0.0, 20.0):
        training = {"rate_penalty": penalty, "epochs": 3}
        methods = {"method": Method(alpha=0.1, changes={"training": training})}
        run = Run(tmp_path / str(penalty), replace(tiny, methods=methods).only("method", 0))
        spikes.append(train_run(run, digits)["spikes_per_image"])
        losses.append(float(next(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))["train_loss"]))
    assert spikes[1] < 0.7 * spikes[0]
    assert losses[1] > losses[0] + 0.5


def test_a_method_that_is_not_trained_as_a_spiking_network_takes_none(tiny):
    methods = {"relu": Method(alpha=0.0, kind="relu", changes={"training": {"rate_penalty": 0.1}})}
    with pytest.raises(ValueError, match="rate_penalty of 'relu', a method of kind relu, must be 0, not 0.1"):
        replace(tiny, methods=methods)
    with pytest.raises(ValueError, match="training.rate_penalty must be greater than or equal to 0, not -1.0"):
        replace(tiny.training, rate_penalty=-1.0)
