import gzip
import hashlib
import tracemalloc

import numpy as np
import pytest
import torch
from torchvision.datasets import FashionMNIST

from lab.data.archives import flip_bit, truncate, write_fashion_mnist, write_idx
from tracegrad.lab.data import DataOptions, load
from tracegrad.lab.data.fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist


def options(root, **settings):
    return DataOptions(name="fashion-mnist", root=str(root), **settings)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_plain_and_compressed_files_are_read_and_split(tmp_path, suffix):
    fashion = load(options(write_fashion_mnist(tmp_path, suffix=suffix)))
    assert [len(part) for part in (fashion.train, fashion.validation, fashion.test)] == [180, 20, 50]
    assert fashion.train.labels.bincount().tolist() == [18] * 10
    assert fashion.validation.labels.bincount().tolist() == [2] * 10
    written = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    read = torch.cat([fashion.train.images, fashion.validation.images])[:, 0]
    assert sorted(image.tobytes() for image in read.numpy()) == sorted(image.tobytes() for image in written)
    assert fashion.classes[9] == "Ankle boot"


@pytest.mark.parametrize("damage", ["missing", "truncated", "another size", "another number"])
def test_the_test_files_are_checked_before_any_training(tmp_path, damage):
    write_fashion_mnist(tmp_path)
    images, labels = (tmp_path / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    if damage == "missing":
        images.unlink()
    elif damage == "truncated":
        truncate(images, 0.9)
    elif damage == "another size":
        write_idx(images, np.zeros((50, 14, 14)))
    else:
        write_idx(labels, np.zeros(49))
    with pytest.raises((OSError, ValueError), match="t10k"):
        load(options(tmp_path, train_size=50))


def test_no_more_memory_is_taken_than_a_header_declares(tmp_path):
    write_fashion_mnist(tmp_path)
    bomb = tmp_path / "train-labels-idx1-ubyte.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + (200).to_bytes(4, "big"))
        for _ in range(300):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"truncated or bit-flipped \(.* has more values, where its header says 200\)"):
        load(options(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    tracemalloc.stop()
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(8))
    bomb.unlink()
    huge = bytes([0, 0, 8, 1]) + (2**32 - 1).to_bytes(4, "big")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(huge)
    with pytest.raises(ValueError, match="0 values, where its header says 4294967295"):
        load(options(tmp_path))


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_real_images_have_the_published_statistics():
    fashion = load(DataOptions(name="fashion-mnist"))
    assert [len(part) for part in (fashion.train, fashion.validation, fashion.test)] == [54_000, 6_000, 10_000]
    pixels = fashion.train.images.float()
    assert float(pixels.mean()) == pytest.approx(fashion.mean[0], rel=2e-3)
    assert float(pixels.std()) == pytest.approx(fashion.std[0], rel=2e-3)


def test_without_a_folder_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("tracegrad.lab.data.fashion_mnist.DEBIAN_FOLDER", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"install Debian's package dataset-fashion-mnist, or set data.root"):
        load(DataOptions(name="fashion-mnist"))


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^no Fashion-MNIST in .*/nowhere: set data.root to their folder"):
        load(options(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, lambda path: flip_bit(path, 0.999), lambda path: truncate(path, 0)]
)
def test_a_damaged_compressed_file_is_refused(tmp_path, name, damage):
    damage(write_fashion_mnist(tmp_path) / f"{name}.gz")
    with pytest.raises(ValueError, match=rf"/{name}.gz is truncated or bit-flipped[^\n]*$"):
        load(options(tmp_path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            truncate,
            r"train-images-idx3-ubyte is truncated or bit-flipped .* \d+ values, where its header says 200 x 28 x 28\)",
        ),
        (lambda path: truncate(path, 8 / path.stat().st_size), "0 values, where its header says 200 x 0 x 0"),
        (
            lambda path: truncate(path, 0),
            "starts with nothing, where 00000803 is right",
        ),
        (lambda path: flip_bit(path, 0), "starts with 01000803, where 00000803 is right"),
    ],
)
def test_a_damaged_plain_file_is_refused(tmp_path, damage, message):
    damage(write_fashion_mnist(tmp_path, suffix="") / "train-images-idx3-ubyte")
    with pytest.raises(ValueError, match=message):
        load(options(tmp_path))


def test_labels_out_of_range_are_refused(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(200) % 11)
    with pytest.raises(ValueError, match=r"^label 10 in the training part of 'fashion-mnist' is out of range"):
        load(options(tmp_path))


def test_another_number_of_labels_is_refused(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(199) % 10)
    with pytest.raises(
        ValueError, match=r"^train images in .* are 200 x 28 x 28, not 199 x 28 x 28, as there are 199 labels"
    ):
        load(options(tmp_path))


@pytest.fixture
def source(tmp_path, serve):
    """torchvision's class, with the files in `tmp_path / "server"` to download."""
    folder = write_fashion_mnist(tmp_path / "server")
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    return type("FashionMNIST", (FashionMNIST,), {"mirrors": [serve(folder)], "resources": resources})


def test_a_download_is_fetched_checked_and_read(tmp_path, source):
    fashion = load_fashion_mnist(options(tmp_path / "root", download=True), source)
    assert (len(fashion.train), len(fashion.test)) == (180, 50)
    again = load_fashion_mnist(options(tmp_path / "root"), source)  # found without asking for a download
    assert torch.equal(again.train.images, fashion.train.images)


def test_a_download_that_was_cut_off_is_completed(tmp_path, source):
    truncate(write_fashion_mnist(tmp_path / "root" / "FashionMNIST" / "raw") / "train-images-idx3-ubyte.gz")
    fashion = load_fashion_mnist(options(tmp_path / "root", download=True), source)
    assert len(fashion.train) == 180


def test_a_download_with_a_wrong_digest_is_refused_in_one_line(tmp_path, source):
    flip_bit(tmp_path / "server" / "train-labels-idx1-ubyte.gz")
    with pytest.raises(OSError, match=r"^cannot download fashion-mnist into [^\n]*corrupted[^\n]*$"):
        load_fashion_mnist(options(tmp_path / "root", download=True), source)


def test_a_download_without_a_connection_is_refused_in_one_line(tmp_path, source):
    source.mirrors = ["http://127.0.0.1:1/"]
    with pytest.raises(OSError, match=r"^cannot download fashion-mnist into [^\n]*refused[^\n]*$"):
        load_fashion_mnist(options(tmp_path / "root", download=True), source)
