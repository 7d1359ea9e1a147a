import json
import shutil

import pytest
import torch

from tracegrad.lab.data import Batches
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.evaluation import evaluate_run


@pytest.fixture(scope="module")
def folder(complete, tmp_path_factory):
    return shutil.copytree(complete, tmp_path_factory.mktemp("evaluated") / "seed-0")


@pytest.fixture(scope="module")
def evaluation(folder):
    return evaluate_run(folder)


@pytest.fixture(scope="module")
def by_hand(complete, digits):
    """Labels and mean outputs of the test images."""
    ((images, labels),) = Batches(digits.test, 1000, dataset=digits, seed=0)
    with torch.no_grad():
        return labels, TrainedRun.read(complete).network()(images).mean(0)


def test_every_number_of_steps_up_to_twice_the_trained_one(evaluation, complete):
    result = json.loads((complete / "result.json").read_text())
    assert list(evaluation.accuracy) == list(evaluation.spikes_per_image) == list(range(1, 9))
    assert evaluation.accuracy[4] == result["test_accuracy"]
    assert evaluation.spikes_per_image[4] == result["spikes_per_image"]
    spikes = list(evaluation.spikes_per_image.values())
    assert spikes == sorted(spikes)


def test_layers_fire_at_spikes_per_neuron_and_step(evaluation, complete):
    result = json.loads((complete / "result.json").read_text())
    assert {layer.name: layer.neurons for layer in evaluation.layers} == result["neurons_per_layer"]
    assert evaluation.layers[0].neurons == 4 * 8 * 8
    for layer in evaluation.layers:
        assert layer.spikes_per_image == result["spikes_per_layer"][layer.name]
        assert layer.firing_rate == pytest.approx(layer.spikes_per_image / layer.neurons / 4)
        assert 0 <= layer.firing_rate <= 1


def test_confusion_counts_every_image_once(evaluation, by_hand):
    labels, scores = by_hand
    expected = [[0] * 10 for _ in range(10)]
    for label, prediction in zip(labels.tolist(), scores.argmax(1).tolist(), strict=True):
        expected[label][prediction] += 1
    assert evaluation.confusion == expected
    assert sum(expected[label][label] for label in range(10)) / 360 == evaluation.accuracy[4]


def test_mistakes_are_the_most_confident_ones(evaluation, by_hand):
    labels, scores = by_hand
    confidence, predicted = scores.softmax(1).max(1)
    wrong = sorted((-confidence[i].item(), i) for i in range(360) if predicted[i] != labels[i])[:24]
    assert [mistake.image for mistake in evaluation.mistakes] == [image for _, image in wrong]
    for mistake, (minus_confidence, image) in zip(evaluation.mistakes, wrong, strict=True):
        assert mistake.confidence == pytest.approx(-minus_confidence)
        assert (mistake.true, mistake.predicted) == (str(labels[image].item()), str(predicted[image].item()))


def test_files_are_a_table_pictures_and_numbers(evaluation, folder):
    folder = folder / "evaluation"
    pictures = ("time-steps", "firing-rates", "confusion", "mistakes")
    names = {"evaluation.json", "evaluation.md", *(f"{name}.png" for name in pictures)}
    assert {path.name for path in folder.iterdir()} == names
    read = json.loads((folder / "evaluation.json").read_text())
    assert read["accuracy"]["4"] == evaluation.accuracy[4]
    assert read["mistakes"][0]["confidence"] == evaluation.mistakes[0].confidence
    text = (folder / "evaluation.md").read_text()
    assert "| 4 (trained) |" in text
    assert "| stages.0.0.neuron1 | 256 |" in text
    for name in pictures:
        assert f"]({name}.png)" in text
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_part_and_time_steps_are_the_users(finished, digits):
    evaluation = evaluate_run(finished, "validation", [6, 2])
    assert list(evaluation.accuracy) == [2, 4, 6]
    assert (evaluation.part, evaluation.images) == ("validation", len(digits.validation))
    result = json.loads((finished / "result.json").read_text())
    assert evaluation.accuracy[4] == pytest.approx(result["validation_accuracy"])


def test_wrong_time_steps_are_an_error(finished):
    with pytest.raises(ValueError, match="model.time_steps must be greater than or equal to 1, not 0"):
        evaluate_run(finished, time_steps=[0])
    assert not (finished / "evaluation").exists()


def test_data_with_other_classes_are_an_error(finished):
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps({**result, "classes": ["cat", "dog"]}))
    with pytest.raises(ValueError, match=r"digits has another classes .* than in training \(\['cat', 'dog'\]\)"):
        evaluate_run(finished)
