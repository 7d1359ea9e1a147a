import zipfile

import pytest
import torch
from torch import nn

from lab.data.archives import flip_bit, truncate
from tracegrad.lab.checkpoints import latest_checkpoint, load_weights, read_checkpoint, weights_of
from tracegrad.lab.files import write


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"model.weight": torch.randn(100, 10), "model.bias": torch.zeros(100)}, "epoch": 4}, path)
    return path


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_anywhere_is_an_error_of_one_line(share, checkpoint):
    truncate(checkpoint, share)
    with pytest.raises(ValueError, match="last.ckpt is damaged") as error:
        read_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


def test_flipped_bits_give_an_error_or_the_very_weights(checkpoint):
    whole, good = checkpoint.read_bytes(), read_checkpoint(checkpoint)
    caught = 0
    for place in range(0, 100, 5):
        checkpoint.write_bytes(whole)
        flip_bit(checkpoint, place / 100)
        try:
            torch.testing.assert_close(read_checkpoint(checkpoint), good, rtol=0, atol=0)
        except ValueError as error:
            caught += "damaged" in str(error)
    assert caught >= 15  # the rest of the file is padding


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("no archive")
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        read_checkpoint(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="last.ckpt is damaged .no checkpoint of a run"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "other.ckpt")


def test_the_last_one_is_gone_on_from_or_else_the_best_one(checkpoint):
    folder = checkpoint.parent
    write(folder / "best.ckpt", checkpoint.read_bytes())
    assert latest_checkpoint(folder)[0].name == "last.ckpt"
    checkpoint.unlink()
    assert latest_checkpoint(folder)[0].name == "best.ckpt"
    (folder / "best.ckpt").unlink()
    assert latest_checkpoint(folder) is None


def test_weights_of_another_network_are_errors_that_say_where(checkpoint):
    weights = weights_of(read_checkpoint(checkpoint))
    network = nn.Linear(10, 100)
    load_weights(network, weights, checkpoint)
    assert torch.equal(network.weight, weights["weight"])
    for other, message in {
        nn.Linear(
            10, 99
        ): r"last.ckpt is the checkpoint of another network: weight is \[100, 10\] there, \[99, 10\] here",
        nn.Linear(10, 100, bias=False): r"bias is \[100\] there, missing here",
        nn.LayerNorm(1): r"weight is \[100, 10\] there, \[1\] here",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_weights(other, weights, checkpoint)
