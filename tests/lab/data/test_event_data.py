"""Event data sets, on recordings that are written by hand in their own formats."""

import hashlib
import shutil
import sys

import numpy as np
import pytest
import torch

from tracegrad.lab.data import Batches, DataOptions, load
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.run import Run
from tracegrad.lab.studies.train_run import train_run

tonic = pytest.importorskip("tonic", reason="needs tonic: pip install 'tracegrad[event-data]'")

from lab.data.recordings import (  # noqa: E402
    packet,
    write_aedat2,
    write_aedat3,
    write_bin,
    write_npy,
    write_shd,
)


def frames_of(cells, shape):
    """Frames that are 0 but for {(step, sign, row, column): count}."""
    frames = torch.zeros(*shape, dtype=torch.uint8)
    for cell, count in cells.items():
        frames[cell] = count
    return frames


def find(split, label, frames):
    """Whether a recording of that label has exactly these frames."""
    return any(torch.equal(each, frames) for each in split.images[split.labels == label])


def events(a, b):
    """Five events in 20 microseconds, two of them in pixel (column a, row b)."""
    return [(a, b, 0, 1), (3, 4, 4, 0), (a, b, 10, 1), (a, b, 15, 1), (33, 33, 20, 0)]


def by_time(a, b, size=34):
    """Two pieces of 10 microseconds from the first event on; the last event is after them."""
    cells = {(0, 1, b, a): 1, (0, 0, 4, 3): 1, (1, 1, b, a): 2}
    return frames_of(cells, (2, 2, size, size))


def by_number(a, b, size=34):
    """Two pieces of two events; the fifth is left over."""
    return frames_of({(0, 1, b, a): 1, (0, 0, 4, 3): 1, (1, 1, b, a): 2}, (2, 2, size, size))


@pytest.fixture
def n_mnist(tmp_path):
    for part in ("Train", "Test"):
        for digit in range(10):
            for number in range(3):
                write_bin(tmp_path / part / str(digit) / f"{number:05}.bin", events(10 + digit, 10 + number))
    return tmp_path


def n_mnist_at(root, **options):
    return load(DataOptions("n-mnist", str(root), options={"frames": 2, **options}))


def test_n_mnist(n_mnist):
    data = n_mnist_at(n_mnist)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 30)
    assert (data.channels, data.image_size, data.time_steps, data.classes[7]) == (2, (34, 34), 2, "7")
    assert find(data.test, 7, by_time(17, 12))
    assert find(n_mnist_at(n_mnist, by="number").test, 7, by_number(17, 12))
    assert find(n_mnist_at(n_mnist, counts=False).test, 7, by_time(17, 12).clamp(max=1))
    small = frames_of({(0, 1, 6, 8): 1, (0, 0, 2, 1): 1, (1, 1, 6, 8): 2}, (2, 2, 17, 17))
    assert find(n_mnist_at(n_mnist, size=17).test, 7, small)


def test_times_of_n_mnist_go_on_after_an_overflow(n_mnist):
    path = n_mnist / "Test" / "0" / "00000.bin"
    write_bin(path, [(1, 1, 0, 1), (1, 1, 8000, 0), (0, 240, 0, 0), (2, 2, 8, 1), (2, 2, 8200 - 8192 + 8000, 1)])
    frames = frames_of({(0, 1, 1, 1): 1, (0, 0, 1, 1): 1, (1, 1, 2, 2): 1}, (2, 2, 34, 34))
    assert find(n_mnist_at(n_mnist).test, 0, frames)


def test_frames_come_in_batches_with_time_first(n_mnist):
    data = n_mnist_at(n_mnist)
    frames, labels = next(iter(Batches(data.test, 30, dataset=data, seed=0)))
    assert frames.shape == (2, 30, 2, 34, 34)
    assert frames.dtype == torch.float32
    assert torch.equal(frames.transpose(0, 1).to(torch.uint8), data.test.images)
    assert torch.equal(labels, data.test.labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"00000\.bin has 0 bytes, and events have 5 each"),
        (b"123456", r"00000\.bin has 6 bytes"),
        (bytes([34, 0, 0, 0, 0]), r"00000\.bin holds an event outside of the sensor of 34 x 34 pixels"),
        (bytes([1, 1, 0, 0, 9, 1, 1, 0, 0, 5]), r"00000\.bin holds events that are not in the order of time"),
    ],
)
def test_damaged_files_of_n_mnist(n_mnist, content, message):
    (n_mnist / "Train" / "4" / "00000.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message + ".*; it is truncated or bit-flipped; replace it"):
        n_mnist_at(n_mnist)


def test_missing_files(n_mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"n-mnist needs its files: set data\.root"):
        load(DataOptions("n-mnist"))
    with pytest.raises(
        FileNotFoundError, match="no Train in .*: set data.root to its folder, or data.download to true"
    ):
        n_mnist_at(tmp_path / "elsewhere")
    shutil.rmtree(n_mnist / "Train" / "4")
    with pytest.raises(FileNotFoundError, match=r"no \*\.bin in .*4; unpack the archive again"):
        n_mnist_at(n_mnist)


def test_a_download_is_checked_by_its_digest(n_mnist, tmp_path, serve, monkeypatch):
    site, root = tmp_path / "site", tmp_path / "root"
    for part in ("Train", "Test"):
        shutil.make_archive(str(site / part.lower()), "zip", n_mnist, part)
    source = tonic.datasets.NMNIST
    address = serve(site)
    for part in ("train", "test"):
        digest = hashlib.md5((site / f"{part}.zip").read_bytes()).hexdigest()
        monkeypatch.setattr(source, f"{part}_url", f"{address}{part}.zip")
        monkeypatch.setattr(source, f"{part}_md5", digest)
    download = DataOptions("n-mnist", str(root), download=True, options={"frames": 2})
    assert find(load(download).test, 7, by_time(17, 12))
    shutil.rmtree(root)
    monkeypatch.setattr(source, "train_md5", "0" * 32)
    with pytest.raises(OSError, match=r"cannot get train\.zip from http.*: File not found or corrupted"):
        load(download)


def test_without_tonic_the_error_says_what_to_install(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tonic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ImportError, match=r"need tonic .*: pip install 'tracegrad\[event-data\]'"):
        load(DataOptions("shd", str(tmp_path)))


CIFAR10_DVS = {"frames": 2, "by": "number"}


@pytest.fixture
def cifar10_dvs(tmp_path):
    for label, name in enumerate(tonic.datasets.CIFAR10DVS.classes):
        for number in range(4):
            write_aedat2(tmp_path / name / f"cifar10_{name}_{number}.aedat", events(100 + label, 120 + number))
    return tmp_path


def test_cifar10_dvs(cifar10_dvs):
    data = load(DataOptions("cifar10-dvs", str(cifar10_dvs), options=CIFAR10_DVS))
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    for split in (data.train, data.validation, data.test):
        for frames, label in zip(split.images, split.labels.tolist(), strict=True):
            assert any(torch.equal(frames, by_number(100 + label, 120 + number, 128)) for number in range(4))
    smaller = load(DataOptions("cifar10-dvs", str(cifar10_dvs), options={**CIFAR10_DVS, "size": 48}))
    assert smaller.image_size == (48, 48)
    assert int(smaller.train.images.long().sum()) == int(data.train.images.long().sum())
    assert data.train.images[0, 1, 1].nonzero().flatten().tolist() != []
    row, column = data.train.images[0, 1, 1].nonzero()[0].tolist()
    assert smaller.train.images[0, 1, 1, row * 48 // 128, column * 48 // 128] == 2


def test_the_archives_in_the_archive_of_cifar10_dvs_are_unpacked(cifar10_dvs, tmp_path, serve, monkeypatch):
    classes, site = list(tonic.datasets.CIFAR10DVS.classes), tmp_path / "site"
    for name in classes:
        shutil.make_archive(str(site / "inner" / name), "zip", cifar10_dvs, name)
    shutil.make_archive(str(site / "CIFAR10DVS"), "zip", site / "inner")
    digest = hashlib.md5((site / "CIFAR10DVS.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(tonic.datasets.CIFAR10DVS, "url", f"{serve(site)}CIFAR10DVS.zip")
    monkeypatch.setattr(tonic.datasets.CIFAR10DVS, "file_md5", digest)
    data = load(DataOptions("cifar10-dvs", str(tmp_path / "root"), download=True, options=CIFAR10_DVS))
    assert (len(data.train), len(data.test)) == (32, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!AER-DAT1.0\r\n", r"does not begin with #!AER-DAT2\.0"),
        (b"#!AER-DAT2.0\r\n", "holds no events"),
        (b"#!AER-DAT2.0\r\n1234567", "ends within an event"),
        (b"", r"does not begin with #!AER-DAT2\.0"),
    ],
)
def test_damaged_files_of_cifar10_dvs(cifar10_dvs, content, message):
    for path in (cifar10_dvs / "cat").iterdir():
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"cifar10_cat_\d\.aedat {message}; it is truncated or bit-flipped"):
        load(DataOptions("cifar10-dvs", str(cifar10_dvs), options=CIFAR10_DVS))


def gestures(user):
    """Eleven gestures of 20 microseconds each, 100 apart, and events between them that belong to none."""
    rows = [(label + 1, 100 * label, 100 * label + 21) for label in range(11)]
    recorded = [
        (x, y, start + t, p)
        for _, start, _ in rows
        for x, y, t, p in [*events(50 + start // 100, 60 + user), (1, 1, 50, 1)]
    ]
    return recorded, rows


GESTURE = {"frames": 2}


@pytest.fixture
def gesture(tmp_path):
    for part, users in (("train", (1, 2, 3)), ("test", (4,))):
        for user in users:
            write_aedat3(tmp_path / f"user{user:02}_led.aedat", *gestures(user))
        names = "".join(f"user{user:02}_led.aedat\n" for user in users)
        (tmp_path / f"trials_to_{part}.txt").write_text(names)
    return tmp_path


def test_dvs128_gesture_as_published(gesture):
    data = load(DataOptions("dvs128-gesture", str(gesture), options=GESTURE))
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 3, 11)
    assert data.classes[3] == "Right arm cw"
    for label in range(11):
        assert torch.equal(data.test.images[label], by_time(50 + label, 64, 128))
    assert data.test.labels.tolist() == list(range(11))
    with pytest.raises(ValueError, match="flip makes another class of what dvs128-gesture shows"):
        Batches(data.train, 2, dataset=data, seed=0, options=DataOptions(flip=True))


def test_dvs128_gesture_as_tonic_offers_it(tmp_path):
    for part, users in (("Train", (1, 2, 3)), ("Test", (4,))):
        for user in users:
            for label in range(11):
                path = tmp_path / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02}_led" / f"{label}.npy"
                write_npy(path, events(50 + label, 60 + user))  # in milliseconds: the same pieces
    data = load(DataOptions("dvs128-gesture", str(tmp_path), options=GESTURE))
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 3, 11)
    assert all(find(data.test, label, by_time(50 + label, 64, 128)) for label in range(11))
    path = tmp_path / "DVSGesture" / "ibmGestureTrain" / "user02_led" / "5.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"5\.npy is no array of NumPy .*; it is truncated or bit-flipped"):
        load(DataOptions("dvs128-gesture", str(tmp_path), options=GESTURE))
    np.save(path, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"5\.npy has shape \[3, 2\], not \[events, 4\]"):
        load(DataOptions("dvs128-gesture", str(tmp_path), options=GESTURE))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("user02_led.aedat", b"#!AER-DAT3.1\r\n" + packet([(1, 1, 1, 1)])[:-1], r"led\.aedat ends within a packet"),
        ("user02_led.aedat", b"#!AER-DAT3.1\r\nshort", r"led\.aedat ends within a packet"),
        ("user02_led.aedat", b"#!AER-DAT3.1\r\n" + packet([(128, 1, 1, 1)]), "an event outside of the sensor"),
        (
            "user02_led_labels.csv",
            b"class,startTime_usec,endTime_usec\n12,0,5\n",
            r"labels\.csv holds no labels .*1 to 11",
        ),
        ("user02_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,0\n", r"labels\.csv holds no labels"),
        ("user02_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,a,b\n", r"labels\.csv holds no labels"),
        ("user02_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,5000,5001\n", "5000 to 5001 holds no events"),
    ],
)
def test_damaged_files_of_dvs128_gesture(gesture, name, content, message):
    (gesture / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(DataOptions("dvs128-gesture", str(gesture), options=GESTURE))
    (gesture / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace(".", r"\.")):
        load(DataOptions("dvs128-gesture", str(gesture), options=GESTURE))


@pytest.fixture
def shd(tmp_path):
    for part in ("train", "test"):
        recordings = [
            ([0.0, 0.2499, 0.25, 0.5, 0.51, 1.2], [label, label, 5, 699, 699, 3], label) for label in range(20)
        ]
        write_shd(tmp_path / f"shd_{part}.h5", recordings * 2)
    return tmp_path


def test_shd(shd):
    data = load(DataOptions("shd", str(shd), options={"frames": 4}))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 40)
    assert (data.channels, data.image_size, data.time_steps) == (700, (), 4)
    expected = torch.zeros(4, 700, dtype=torch.uint8)
    expected[0, 12], expected[1, 5], expected[2, 699] = 2, 1, 2  # the last spike is after the first second
    assert torch.equal(data.test.images[12], expected)
    sequences, _ = next(iter(Batches(data.test, 40, dataset=data, seed=0)))
    assert sequences.shape == (4, 40, 700)
    assert torch.equal(sequences[:, 12].to(torch.uint8), expected)
    binary = load(DataOptions("shd", str(shd), options={"frames": 4, "counts": False}))
    assert torch.equal(binary.test.images[12], expected.clamp(max=1))
    with pytest.raises(ValueError, match="crop_padding, flip and cutmix are for images; shd holds sequences"):
        Batches(data.train, 2, dataset=data, seed=0, options=DataOptions(crop_padding=1))


def test_the_recipe_of_shd_trains_with_pairs_of_both_layers(shd, tmp_path):
    recipe = load_recipe("shd", {"data.root": str(shd), "training.epochs": "1", "training.batch_size": "4"})
    run = Run(tmp_path / "run", recipe.only("gradient-scale", 0))
    result = train_run(run, load(recipe.data))
    assert list(map(tuple, result["pairs"])) == [("layers.0.recurrent", "layers.0.neuron")]


def test_damaged_files_of_shd(shd):
    path = shd / "shd_train.h5"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole[:100] + bytes(2000) + whole[2100:]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"shd_train\.h5 holds no spikes of SHD .*; it is truncated or bit-flipped"
        ):
            load(DataOptions("shd", str(shd)))
    write_shd(path, [([0.1], [700], 0)])
    with pytest.raises(ValueError, match="a spike in channel 700 of 700"):
        load(DataOptions("shd", str(shd)))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no shd_train\.h5 in"):
        load(DataOptions("shd", str(shd)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "data.options.frames must be greater than 0, not 0"),
        ({"frames": 2.5}, "data.options.frames must be a valid integer, not 2.5"),
        ({"by": "count"}, "data.options.by must be 'time' or 'number', not 'count'"),
        ({"stabilise": True}, "unknown field data.options.stabilise; n-mnist has by, counts, frames, size"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        n_mnist_at(tmp_path, **options)
