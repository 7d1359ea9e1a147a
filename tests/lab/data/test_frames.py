"""Recordings over time in the laboratory: batches, and whole studies."""

import json

import pytest
import torch

from tracegrad.cli import main
from tracegrad.lab.data import Batches, DataOptions, Dataset, Split, batch_dim


def recordings(shape=(3, 2, 5, 5), count=12):
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(count) % 2)
    return Dataset("clips", split, split, lambda: split, ("a", "b"), (1.0, 2.0), (2.0, 4.0))


def test_frames_are_normalised_by_channel_with_time_first():
    data = recordings()
    frames, _ = next(iter(Batches(data.train, 12, dataset=data, seed=0)))
    assert batch_dim(frames) == 1
    for channel in range(2):
        right = (data.train.images[:, :, channel].float() - data.mean[channel]) / data.std[channel]
        assert torch.equal(frames[:, :, channel], right.transpose(0, 1))


def test_all_frames_of_a_recording_are_augmented_the_same_way():
    images = torch.arange(25, dtype=torch.uint8).view(1, 1, 1, 5, 5).expand(12, 3, 2, 5, 5).contiguous()
    split = Split(images, torch.arange(12) % 2)
    data = Dataset("clips", split, split, lambda: split, ("a", "b"), (0.0, 0.0), (1.0, 1.0))
    options = DataOptions(crop_padding=2, flip=True)
    frames, _ = next(iter(Batches(split, 12, dataset=data, seed=0, options=options)))
    assert (frames == frames[:1, :, :1]).all()
    assert len({tuple(frame.flatten().tolist()) for frame in frames[0, :, 0]}) > 6
    still = Dataset(
        "stills", *(Split(images[:, 0], split.labels),) * 2, lambda: split, ("a", "b"), (0.0,) * 2, (1.0,) * 2
    )
    same, _ = next(iter(Batches(still.train, 12, dataset=still, seed=0, options=options)))
    assert torch.equal(frames[1], same)  # as an image is augmented


def test_cutmix_cuts_the_same_box_out_of_all_frames():
    data = recordings()
    frames, targets = next(iter(Batches(data.train, 12, dataset=data, seed=2, options=DataOptions(cutmix=1.0))))
    own, _ = next(iter(Batches(data.train, 12, dataset=data, seed=2)))
    pasted = frames != own
    assert pasted.any()
    box = pasted.any(0).any(0).any(0)
    assert torch.equal(frames[..., box], own.roll(1, 1)[..., box])
    assert torch.allclose(targets.sum(1), torch.ones(12))


def test_pictures_of_frames_and_sequences():
    data = recordings()
    pictures = data.train.pictures([3, 1])
    assert pictures.shape == (2, 3, 5, 5)
    assert torch.equal(pictures[0, 0], data.train.images[3, :, 1].float().mean(0))
    assert torch.equal(pictures[0, 2], data.train.images[3, :, 0].float().mean(0))
    sequences = Split(torch.rand(4, 6, 7), torch.zeros(4, dtype=torch.int64))
    assert torch.equal(sequences.pictures([2])[0, 0], sequences.images[2].T)


RECIPE = """
data: {name: moving, train_size: 20, crop_padding: 1, options: {frames: 4, repeats: 1}}
model: {name: resnet, time_steps: 4, options: {blocks: [1], width: 2}}
training: {epochs: 1, batch_size: 10, threads: 1}
methods: {baseline: , gradient-scale: {alpha: 0.1}, rate: {kind: relu}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    (folder / "clips.yaml").write_text(RECIPE)
    assert main(["study", str(folder / "clips.yaml"), "--output", str(folder / "study")]) == 0
    return folder / "study"


def test_a_study_of_recordings_with_its_report(study):
    result = json.loads((study / "gradient-scale" / "seed-0" / "result.json").read_text())
    assert (result["image_shape"], result["frames"], result["time_steps"]) == ([2, 16, 16], 4, 4)
    assert len(result["pairs"]) == 3
    assert result["spikes_per_image"] > 0
    assert 0 <= result["test_accuracy"] <= 1
    assert (study / "report.html").is_file()
    stateless = json.loads((study / "rate" / "seed-0" / "result.json").read_text())
    assert stateless["spikes_per_image"] == 0


def test_its_runs_are_evaluated_and_exported(study, tmp_path):
    run = study / "gradient-scale" / "seed-0"
    assert main(["evaluate", str(run)]) == 0
    evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert list(evaluation["accuracy"]) == ["4"]
    assert main(["export", str(run), "--output", str(tmp_path / "weights.safetensors")]) == 0
    assert (tmp_path / "weights.safetensors").is_file()


def test_another_t_than_the_recordings_have_is_refused(study, capsys, tmp_path):
    assert main(["evaluate", str(study / "baseline" / "seed-0"), "--time-steps", "[2]"]) != 0
    assert "a recording of moving has 4 frames: no other T can be measured" in capsys.readouterr().err
    (tmp_path / "clips.yaml").write_text(RECIPE)
    assert (
        main(["study", str(tmp_path / "clips.yaml"), "--model.time_steps", "3", "--output", str(tmp_path / "s")]) != 0
    )
    assert "model.time_steps must be 4, the frames of a recording of moving, not 3" in capsys.readouterr().err


def test_methods_that_take_images_are_refused(capsys, tmp_path):
    recipe = tmp_path / "clips.yaml"
    recipe.write_text(RECIPE.replace("rate: {kind: relu}", "qcfs: {kind: qcfs}"))
    assert main(["study", str(recipe), "--output", str(tmp_path / "s")]) != 0
    assert (
        "the kind of method 'qcfs' must be direct or relu: others take images, not the frames"
        in capsys.readouterr().err
    )
