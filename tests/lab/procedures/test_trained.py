import json
import shutil
from dataclasses import replace

import pytest
import torch

from lab.data.archives import truncate
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.runs.checkpoints import read_checkpoint
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.train_run import train_run


def test_the_network_is_the_best_one_at_any_number_of_time_steps(complete, digits):
    trained = TrainedRun.read(complete)
    state = read_checkpoint(complete / "checkpoints/weights.ckpt")["model"]
    for name, value in trained.network().state_dict().items():
        assert torch.equal(value, state[name])
    assert not trained.network().training
    images = digits.validation.images[:2].float()
    assert trained.network()(images).shape[0] == 4
    # larger batches of time steps may take other kernels, which round otherwise
    torch.testing.assert_close(trained.network(7)(images)[:4], trained.network()(images))


def test_half_written_runs_are_errors_of_one_line(finished):
    def refused(message):
        with pytest.raises((ValueError, OSError), match=message) as error:
            TrainedRun.read(finished)
        assert "\n" not in str(error.value)

    result, config = finished / "result.json", finished / "config.yaml"
    whole = result.read_text()
    result.write_text(json.dumps({"test_accuracy": 1.0}))
    refused("result.json is damaged: its content.spikes_per_image must be there")
    truncate(result)
    refused("result.json is damaged")
    result.unlink()
    refused("seed-0 holds an interrupted run; start it again to go on")
    result.write_text(whole)
    truncate(finished / "checkpoints/weights.ckpt")
    refused("weights.ckpt is damaged")
    (finished / "checkpoints/weights.ckpt").unlink()
    refused("No such file .*weights.ckpt'; remove .*result.json and start the run again")
    config.write_text("data: [")
    refused("config.yaml is damaged: .* is not YAML")
    config.write_text("")
    refused("config.yaml is damaged: .*config.yaml must be a recipe")
    config.write_text("seeds: [0, 1]")
    refused("config.yaml is not that of a run: it must have one method and one seed")
    config.unlink()
    refused("seed-0 is no run: it has no config.yaml")
    shutil.rmtree(finished)
    refused("seed-0 is no run: it has no config.yaml")


def test_the_checkpoint_of_another_network_is_an_error(finished, tiny, digits, tmp_path):
    deep = replace(tiny, model=replace(tiny.model, options={**tiny.model.options, "blocks": [1, 1]}))
    other = Run(tmp_path / "deep", deep.only("baseline", 0))
    train_run(other, digits)
    shutil.copy(other.checkpoints / "weights.ckpt", finished / "checkpoints")
    with pytest.raises(
        ValueError, match="weights.ckpt is the checkpoint of another network: .*Unexpected key.*stages.1.0.conv1.weight"
    ):
        TrainedRun.read(finished).network()
