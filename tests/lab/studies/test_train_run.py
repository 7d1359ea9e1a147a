import csv
import json
import logging
import math
import signal
import warnings
from dataclasses import replace

import pytest
import torch

from lab.watching import Note
from tracegrad.lab.data import Batches
from tracegrad.lab.evaluate import evaluate
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.checkpoints import kept_weights, read_checkpoint
from tracegrad.lab.runs.run import Run, plan
from tracegrad.lab.studies.train_run import train_run
from tracegrad.methods.objectives import mean_over_time


def _rows(run):
    with (run.folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _numbers(run):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in _rows(run)]


@pytest.fixture(scope="module")
def trained(tiny, digits, tmp_path_factory):
    """Both methods with seed 0: (run, result, what was watched) by name."""
    runs = {}
    for run in plan(replace(tiny, seeds=[0]), tmp_path_factory.mktemp("study")):
        watch = Note()
        runs[run.name] = run, train_run(run, digits, watch), watch
    return runs


def test_a_run_leaves_its_folder(trained, tiny):
    run, result, _ = trained["gradient-scale"]
    files = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    logged = {file for file in files if file.startswith("tensorboard/")}
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("weights", "last", "previous")}
    assert files - logged == checkpoints | {
        "config.yaml",
        "metrics.csv",
        "relations.csv",
        "probe.npz",
        "test.npz",
        "result.json",
    }
    assert run.complete
    assert run.read_result() == json.loads(json.dumps(result))
    assert (result["method"], result["seed"], result["reset"], result["epochs"]) == ("gradient-scale", 0, "soft", 2)
    assert [row["epoch"] for row in _rows(run)] == ["1", "2"]
    assert float(_rows(run)[0]["learning_rate"]) == tiny.training.learning_rate
    assert float(_rows(run)[1]["train_loss"]) < float(_rows(run)[0]["train_loss"])
    assert {"command", "commit", "versions", "machine", "seconds", "parameters", "pairs"} < result.keys()
    assert result["seconds"] == pytest.approx(sum(float(row["seconds"]) for row in _rows(run)))
    assert result["neurons_per_layer"] == dict.fromkeys(result["spikes_per_layer"], 4 * 8 * 8)
    assert (result["classes"], result["image_shape"]) == (tuple("0123456789"), [1, 8, 8])
    assert result["spikes_per_image"] == pytest.approx(sum(result["spikes_per_layer"].values()))


def test_the_best_checkpoint_is_what_is_measured(trained, digits):
    run, result, _ = trained["baseline"]
    model = build_model(run.recipe.model, 10, 1)
    model.load_state_dict(kept_weights(run))
    for part, name in ((digits.validation, "validation_accuracy"), (digits.test, "test_accuracy")):
        measured = evaluate(model, Batches(part, 50, dataset=digits, seed=0), mean_over_time)
        assert measured.accuracy == pytest.approx(result[name])
        shares = measured.scores.double().softmax(-1)[torch.arange(len(part)), part.labels]
        assert name != "test_accuracy" or result["test_nll"] == pytest.approx(float(-shares.log().mean()), rel=1e-5)
    assert max(float(row["validation_accuracy"]) for row in _rows(run)) == pytest.approx(result["validation_accuracy"])


def test_a_seed_pairs_the_methods(trained):
    (_, _, baseline), (_, _, scaled) = trained["baseline"], trained["gradient-scale"]
    assert baseline.weights.keys() == scaled.weights.keys()
    assert all(torch.equal(baseline.weights[name], scaled.weights[name]) for name in baseline.weights)
    assert len(baseline.batches) == len(scaled.batches) == 2 * 7
    for ours, theirs in zip(baseline.batches, scaled.batches, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    assert not torch.equal(baseline.batches[0][1], baseline.batches[7][1])  # another order in the second epoch
    assert _numbers(trained["baseline"][0]) != _numbers(trained["gradient-scale"][0])


def test_the_same_numbers_when_run_again_whatever_else_draws(trained, digits, tmp_path):
    run, result, _ = trained["gradient-scale"]
    torch.rand(5)
    again = Run(tmp_path, run.recipe)
    repeated = train_run(again, digits)
    assert _numbers(again) == _numbers(run)
    for name in ("test_accuracy", "spikes_per_image", "spikes_per_layer", "validation_accuracy"):
        assert repeated[name] == result[name]
    weights, others = (read_checkpoint(each.checkpoints / "last.ckpt")["model"] for each in (run, again))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_another_seed_gives_other_weights(tiny, digits, tmp_path, trained):
    watch = Note()
    train_run(Run(tmp_path, tiny.only("baseline", 1)), digits, watch)
    assert not torch.equal(watch.weights["conv.weight"], trained["baseline"][2].weights["conv.weight"])


def test_alpha_zero_under_any_name_is_the_baseline(trained, tiny, digits, tmp_path):
    run, _, _ = trained["baseline"]
    options = replace(tiny.methods["gradient-scale"], alpha=0.0)
    other = Run(tmp_path, replace(run.recipe, methods={"mine": options}))
    train_run(other, digits)
    assert _numbers(other) == _numbers(run)


def test_the_test_part_is_read_once_and_after_training(tiny, digits, tmp_path):
    events = []

    def note(moment):
        if moment.share == 1:
            events.append("trained")

    def read():
        events.append("test part read")
        return digits.test

    train_run(Run(tmp_path, tiny.only("baseline", 0)), replace(digits, read_test=read), note)
    assert events == ["trained", "test part read"]


def test_nothing_of_the_process_is_changed_or_shown(tiny, digits, tmp_path, capfd):
    def state():
        loggers = [logging.getLogger(name).level for name in ("lightning_fabric", "matplotlib")]
        deterministic = (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )
        return loggers, deterministic, torch.get_num_threads(), signal.getsignal(signal.SIGINT), warnings.filters[:]

    before, random = state(), torch.get_rng_state()
    train_run(Run(tmp_path, replace(tiny, training=replace(tiny.training, threads=2)).only("baseline", 0)), digits)
    assert state() == before
    assert torch.equal(torch.get_rng_state(), random)
    assert capfd.readouterr() == ("", "")


def test_bf16_and_adam_train(tiny, digits, tmp_path):
    training = replace(tiny.training, precision="bf16", optimizer="adam", learning_rate=0.01, epochs=1)
    result = train_run(Run(tmp_path, replace(tiny, training=training).only("gradient-scale", 0)), digits)
    assert 0 <= result["test_accuracy"] <= 1
    assert math.isfinite(float(_rows(Run(tmp_path, tiny))[0]["train_loss"]))


def test_nan_in_the_images_names_epoch_and_step(tiny, digits, tmp_path):
    run = Run(tmp_path, tiny.only("baseline", 0))
    with pytest.raises(ValueError, match="baseline, seed 0: the images in epoch 1, step 1 hold NaN or infinity"):
        train_run(run, replace(digits, std=(math.nan,)))
    assert not run.complete


def test_a_network_full_of_nan_is_no_result(digits, tmp_path):
    fields = {
        "model.options": "{blocks: [1, 1], width: 8, norm: tebn}",
        "training.precision": "bf16",
        "training.learning_rate": "100",
        "training.epochs": "4",
        "training.threads": "1",
        "data.train_size": "200",
    }
    run = Run(tmp_path, load_recipe("digits", fields).only("baseline", 0))
    with pytest.raises(ValueError, match=r"holds NaN or infinity after epoch \d; lower|the loss is"):
        train_run(run, digits)
    assert not run.complete


def test_the_final_weights_are_kept_where_asked(tiny, digits, tmp_path):
    final = replace(tiny, training=replace(tiny.training, keep="final"))
    run = Run(tmp_path, final.only("baseline", 0))
    result = train_run(run, digits)
    last = read_checkpoint(run.checkpoints / "last.ckpt")["model"]
    assert all(torch.equal(value, last[name]) for name, value in kept_weights(run).items())
    assert result["validation_accuracy"] == float(_rows(run)[-1]["validation_accuracy"])


def test_digests_of_the_data_are_recorded(trained, digits):
    _, result, _ = trained["baseline"]
    assert result["data_digests"] == {part: getattr(digits, part).digest() for part in ("train", "validation", "test")}


def test_nan_in_the_loss_names_epoch_and_step(tiny, digits, tmp_path):
    diverging = replace(tiny, training=replace(tiny.training, learning_rate=1e30))
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch 1, step \d+; lower training.learning_rate"):
        train_run(Run(tmp_path, diverging.only("baseline", 0)), digits)


def test_the_latest_of_equally_good_epochs_is_best(tiny, digits, tmp_path):
    frozen = replace(tiny, training=replace(tiny.training, learning_rate=1e-30, epochs=2))
    run = Run(tmp_path, frozen.only("baseline", 0))
    # Without moving weights only the running statistics move: make them still, too.
    still = replace(digits, std=(1e9,))
    train_run(run, still)
    assert len({row["validation_accuracy"] for row in _rows(run)}) == 1
    last = read_checkpoint(run.checkpoints / "last.ckpt")
    assert all(torch.equal(value, last["model"][name]) for name, value in kept_weights(run).items())
