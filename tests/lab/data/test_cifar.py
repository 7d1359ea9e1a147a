import shutil

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from lab.data.archives import flip_bit, truncate, write_cifar
from tracegrad.lab.data import DataOptions
from tracegrad.lab.data.cifar import CIFAR10_BINARY, load_cifar10, load_cifar100


def options(root, name="cifar10", **settings):
    return DataOptions(name=name, root=str(root), **settings)


def test_an_archive_is_unpacked_and_read(tmp_path):
    cifar = load_cifar10(options(tmp_path), write_cifar(tmp_path))
    assert [len(part) for part in (cifar.train, cifar.validation, cifar.test)] == [180, 20, 50]
    assert cifar.train.labels.bincount().tolist() == [18] * 10
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)  # as written: red, green, blue
    written = {image.tobytes(): label for label, image in zip(np.arange(200) % 10, pixels, strict=True)}
    for part in (cifar.train, cifar.validation):
        assert [written[image.tobytes()] for image in part.images.numpy()] == part.labels.tolist()
    assert cifar.train.images.shape[1:] == (3, 32, 32)
    assert cifar.classes[3] == "class 3"


def test_cifar100_has_its_fine_labels(tmp_path):
    source = write_cifar(tmp_path, CIFAR100, train=1000, test=100)
    cifar = load_cifar100(options(tmp_path, "cifar100", train_size=500), source)
    assert len(cifar.classes) == 100
    assert cifar.train.labels.bincount().tolist() == [5] * 100
    assert cifar.validation.labels.bincount().tolist() == [1] * 100
    assert sorted(cifar.test.labels.tolist()) == list(range(100))


def test_unpacked_files_do_not_need_the_archive(tmp_path):
    source = write_cifar(tmp_path)
    first = load_cifar10(options(tmp_path), source)
    (tmp_path / source.filename).unlink()
    assert torch.equal(load_cifar10(options(tmp_path), source).train.images, first.train.images)


def test_a_download_is_fetched_checked_and_unpacked(tmp_path, serve):
    source = write_cifar(tmp_path, CIFAR100, train=1000, test=100)
    source.url = serve(tmp_path) + source.filename
    cifar = load_cifar100(options(tmp_path / "new", "cifar100", download=True), source)
    assert len(cifar.train) == 900
    assert (tmp_path / "new" / source.base_folder).is_dir()


def test_files_that_were_unpacked_by_half_are_unpacked_again(tmp_path):
    source = write_cifar(tmp_path)
    load_cifar10(options(tmp_path), source)
    truncate(tmp_path / source.base_folder / "data_batch_2")
    assert len(load_cifar10(options(tmp_path), source).train) == 180


@pytest.mark.parametrize("damage", [truncate, flip_bit])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    source = write_cifar(tmp_path)
    damage(tmp_path / source.filename)
    with pytest.raises(ValueError, match=r"/cifar-10-python.tar.gz is truncated or bit-flipped: its digest[^\n]*$"):
        load_cifar10(options(tmp_path), source)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", [truncate, flip_bit])
def test_a_damaged_file_is_refused_before_it_is_unpickled(tmp_path, damage, name):
    source = write_cifar(tmp_path)
    load_cifar10(options(tmp_path), source)
    (tmp_path / source.filename).unlink()
    damage(tmp_path / source.base_folder / name)
    with pytest.raises(ValueError, match=rf"/{name} is truncated or bit-flipped: its digest[^\n]*$"):
        load_cifar10(options(tmp_path), source)


def test_a_download_with_a_wrong_digest_is_refused(tmp_path, serve):
    source = write_cifar(tmp_path, CIFAR100, train=1000, test=100)
    source.url = serve(tmp_path) + source.filename
    flip_bit(tmp_path / source.filename)
    with pytest.raises(ValueError, match=r"/cifar-100-python.tar.gz is truncated or bit-flipped: its digest[^\n]*$"):
        load_cifar100(options(tmp_path / "new", "cifar100", download=True), source)
    assert not (tmp_path / "new" / source.base_folder).exists()


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^cifar10 needs its files: set data.root .* data.download"):
        load_cifar10(DataOptions(name="cifar10"))
    with pytest.raises(FileNotFoundError, match=r"put cifar-10-binary.tar.gz there, or set data.download to true$"):
        load_cifar10(options(tmp_path))
    source = write_cifar(tmp_path)
    load_cifar10(options(tmp_path), source)
    (tmp_path / source.filename).unlink()
    (tmp_path / source.base_folder / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=r"^no cifar-10-batches-py/data_batch_4 in "):
        load_cifar10(options(tmp_path), source)


def test_the_shipped_classes_check_the_published_digests(tmp_path):
    write_cifar(tmp_path)
    with pytest.raises(ValueError, match=r"its digest is not the published one"):
        load_cifar10(options(tmp_path))


def test_labels_out_of_range_are_refused(tmp_path):
    source = write_cifar(tmp_path, train=200, test=200, labels=np.arange(200) % 11)
    with pytest.raises(ValueError, match=r"^label 10 in the training part of 'cifar10' is out of range"):
        load_cifar10(options(tmp_path), source)


def test_the_test_part_is_unpickled_only_when_asked_for(tmp_path):
    source = write_cifar(tmp_path)
    cifar = load_cifar10(options(tmp_path), source)
    shutil.rmtree(tmp_path / source.base_folder)
    with pytest.raises(RuntimeError, match=r"not found or corrupted"):
        _ = cifar.test


def test_the_classes_are_torchvisions():
    assert load_cifar10.__defaults__ == (CIFAR10, CIFAR10_BINARY)
    assert load_cifar100.__defaults__ == (CIFAR100,)
