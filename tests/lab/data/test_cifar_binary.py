from dataclasses import replace

import numpy as np
import pytest

from lab.data.archives import flip_bit, truncate, write_binary_cifar, write_cifar
from tracegrad.lab.data import DataOptions
from tracegrad.lab.data.cifar import load_cifar10


def load(root, binary, source=None, **settings):
    sources = {} if source is None else {"source": source}
    return load_cifar10(DataOptions(name="cifar10", root=str(root), **settings), binary=binary, **sources)


def test_both_versions_hold_the_same_images_in_the_same_order(tmp_path):
    for name in ("binary", "python"):
        (tmp_path / name).mkdir()
    binary = write_binary_cifar(tmp_path / "binary")
    ours = load(tmp_path / "binary", binary)
    theirs = load(tmp_path / "python", binary, write_cifar(tmp_path / "python"))
    for part in ("train", "validation", "test"):
        assert getattr(ours, part).digest() == getattr(theirs, part).digest()
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert ours.classes[3] == "cat"


def test_the_binary_version_is_read_where_both_are_there(tmp_path):
    source = write_cifar(tmp_path)
    truncate(tmp_path / source.filename)
    assert len(load(tmp_path, write_binary_cifar(tmp_path), source).train) == 180


def test_known_files_alone_are_unpacked_and_do_not_need_the_archive(tmp_path):
    binary = write_binary_cifar(tmp_path)
    first = load(tmp_path, binary)
    unpacked = {path.name for path in (tmp_path / binary.folder).iterdir()}
    assert unpacked == {*binary.train, *binary.test}
    (tmp_path / binary.filename).unlink()
    assert load(tmp_path, binary).train.digest() == first.train.digest()
    assert not (tmp_path.parent / "elsewhere").exists()


def test_a_download_is_fetched_and_checked(tmp_path, serve):
    binary = write_binary_cifar(tmp_path)
    served = replace(binary, url=serve(tmp_path) + binary.filename)
    assert len(load(tmp_path / "new", served, download=True).train) == 180
    flip_bit(tmp_path / binary.filename)
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is truncated or bit-flipped: its digest"):
        load(tmp_path / "newer", served, download=True)
    assert not (tmp_path / "newer" / binary.folder).exists()
    missing = replace(binary, url=f"{served.url}.missing")
    with pytest.raises(OSError, match=r"^cannot get cifar-10-binary.tar.gz.missing from http:"):
        load(tmp_path / "newest", missing, download=True)


@pytest.mark.parametrize("damage", [truncate, flip_bit])
def test_what_is_damaged_is_named(tmp_path, damage):
    binary = write_binary_cifar(tmp_path)
    load(tmp_path, binary)
    damage(tmp_path / binary.folder / "test_batch.bin")
    load(tmp_path, binary)  # unpacks it again
    (tmp_path / binary.filename).unlink()
    damage(tmp_path / binary.folder / "data_batch_3.bin")
    with pytest.raises(ValueError, match=r"data_batch_3.bin is truncated or bit-flipped: its digest [^\n]*again$"):
        load(tmp_path, binary)
    (tmp_path / binary.folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"^no cifar-10-batches-bin/data_batch_3.bin in "):
        load(tmp_path, binary)


def test_labels_out_of_range_are_refused(tmp_path):
    binary = write_binary_cifar(tmp_path, train=200, test=200, labels=np.arange(200) % 11)
    with pytest.raises(ValueError, match=r"^label 10 in the training part of 'cifar10' is out of range"):
        load(tmp_path, binary)


def test_a_digest_is_that_of_images_and_labels(tmp_path):
    train = load(tmp_path, write_binary_cifar(tmp_path)).train
    other = replace(train, labels=train.labels.flip(0))
    assert len({train.digest(), other.digest(), replace(train, images=train.images.flip(0)).digest()}) == 3
