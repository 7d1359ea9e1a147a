import io
import zipfile

import pytest
import torch
from torch import nn

from lab.data.archives import flip_bit, truncate
from tracegrad.lab.runs import checkpoints
from tracegrad.lab.runs.checkpoints import Interval, latest_checkpoint, load_weights, read_checkpoint, write_checkpoint
from tracegrad.lab.runs.run import Run


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(path, {"model": {"weight": torch.randn(100, 10), "bias": torch.zeros(100)}, "epoch": 4})
    return path


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_anywhere_is_an_error_of_one_line(share, checkpoint):
    truncate(checkpoint, share)
    with pytest.raises(ValueError, match="last.ckpt is damaged") as error:
        read_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


def test_every_flipped_bit_is_seen(checkpoint):
    whole = checkpoint.read_bytes()
    for place in range(0, 1000, 7):
        checkpoint.write_bytes(whole)
        flip_bit(checkpoint, place / 1000)
        with pytest.raises(ValueError, match=r"last.ckpt is damaged \(its digest is wrong\)"):
            read_checkpoint(checkpoint)


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("no archive")
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        read_checkpoint(path)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    path.write_bytes(file.getvalue())
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        read_checkpoint(path)
    for content in ({"weight": torch.zeros(1)}, {"model": 3}, {"model": {"weight": [1.0]}}):
        write_checkpoint(path, content)
        with pytest.raises(ValueError, match=r"last.ckpt is damaged \((.*'model'|.*no attribute|its weights are no)"):
            read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "other.ckpt")


def test_a_packed_archive_is_refused_before_it_takes_memory(tmp_path, checkpoint):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    data = file.getvalue()
    digest = checkpoints.hashlib.sha256(data).digest()
    checkpoint.write_bytes(checkpoints.MAGIC + digest + data)
    with pytest.raises(ValueError, match=r"damaged \(it is packed\)"):
        read_checkpoint(checkpoint)


def test_the_last_two_are_kept_and_the_whole_one_is_gone_on_from(checkpoint, tiny, caplog):
    run = Run(checkpoint.parents[1], tiny.only("baseline", 0))
    assert latest_checkpoint(run)[1]["epoch"] == 4
    write_checkpoint(checkpoint, {"model": {}, "epoch": 5}, keep=run.checkpoints / "previous.ckpt")
    assert latest_checkpoint(run)[1]["epoch"] == 5
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}
    truncate(checkpoint)
    assert latest_checkpoint(run)[1]["epoch"] == 4
    assert "last.ckpt is damaged" in caplog.text
    truncate(run.checkpoints / "previous.ckpt")
    with pytest.raises(ValueError, match=r"no checkpoint is left .*last.ckpt is damaged .*previous.ckpt is damaged"):
        latest_checkpoint(run)
    for path in run.checkpoints.iterdir():
        path.unlink()
    assert latest_checkpoint(run) is None


def test_weights_of_another_network_are_errors_that_say_where(checkpoint):
    weights = read_checkpoint(checkpoint)["model"]
    network = nn.Linear(10, 100)
    load_weights(network, weights, checkpoint)
    assert torch.equal(network.weight, weights["weight"])
    for other, message in {
        nn.Linear(
            10, 99
        ): r"size mismatch for weight: .*\[100, 10\]\) from checkpoint, .* current model is .*\[99, 10\]",
        nn.Linear(10, 100, bias=False): r'Unexpected key\(s\) in state_dict: "bias"',
        nn.LayerNorm(1): r"size mismatch for weight: .*\[100, 10\]\) from checkpoint, .* current model is .*\[1\]",
    }.items():
        with pytest.raises(ValueError, match=f"last.ckpt is the checkpoint of another network: .*{message}"):
            load_weights(other, weights, checkpoint)


def test_intervals_count_steps_or_time(monkeypatch):
    interval = Interval("3steps")
    assert [interval.is_over() for _ in range(7)] == [False, False, True, False, False, True, False]
    now = 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    interval = Interval("2min")
    for now, over in ((100, False), (120, True), (239, False), (240, True)):  # noqa: B007 - the clock reads it
        assert interval.is_over() == over
