"""Recorded event data: N-MNIST, CIFAR10-DVS, DVS128 Gesture and the Spiking Heidelberg Digits, as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveInt

from tracegrad.lab.data import event_files
from tracegrad.lab.data.dataset import Dataset, Split, unnormalised
from tracegrad.lab.data.options import DataOptions, own_options, root_of
from tracegrad.lab.data.splits import split_dataset

Array = np.ndarray[Any, Any]
Recordings = Iterator[tuple[event_files.Events, int]]
"""Events and the label of each recording."""

SHD_SECONDS, SHD_CHANNELS = 1.0, 700


@dataclass(frozen=True)
class Bins:
    """How spikes become a sequence: T bins of equal length over the first second.

    Args:
        frames: T.
        counts: numbers of spikes, at most 255, instead of whether there was one.
    """

    frames: PositiveInt = 100
    counts: bool = True

    def of(self, times: Array, units: Array) -> Array:
        """The sequence of spikes in seconds and of channels, uint8 [T, 700]; later spikes, few as they are, are out."""
        if len(units) and not 0 <= units.min() <= units.max() < SHD_CHANNELS:
            raise ValueError(f"a spike in channel {units.max()} of {SHD_CHANNELS}")
        step = (times.astype(np.float64) * self.frames / SHD_SECONDS).astype(np.int64)
        within = (step >= 0) & (step < self.frames)
        counts = np.zeros((self.frames, SHD_CHANNELS), np.int64)
        np.add.at(counts, (step[within], units[within]), 1)
        return np.minimum(counts, 255 if self.counts else 1).astype(np.uint8)


@dataclass(frozen=True)
class Frames:
    """How the events of a recording become frames.

    Args:
        frames: T.
        by: "time" cuts a recording into T pieces of equal length from its first to its last event, "number" into T
            pieces of equally many events; what is left over at the end is in none.
        counts: numbers of events, at most 255, instead of whether there was one.
        size: height and width of the frames: an event goes to the pixel in which its own lies; the sensor's by default.
    """

    frames: PositiveInt = 10
    by: Literal["time", "number"] = "time"
    counts: bool = True
    size: PositiveInt | None = None

    def of(self, events: event_files.Events, sensor: int) -> Array:
        """The frames of a square sensor, uint8 [T, 2, size, size]: channel 0 of OFF, channel 1 of ON events."""
        size = self.size or sensor
        if size != sensor:
            events = events.copy()
            events["x"], events["y"] = events["x"] * size // sensor, events["y"] * size // sensor
        pieces = {"n_time_bins" if self.by == "time" else "n_event_bins": self.frames}
        frames = event_files.tonic_module("functional").to_frame_numpy(events, (size, size, 2), **pieces)
        return np.minimum(frames, 255 if self.counts else 1).astype(np.uint8)

    def split(self, recordings: Recordings, sensor: int) -> Split:
        """The frames of recordings, which are read one by one."""
        return _split((self.of(events, sensor), label) for events, label in recordings)


def load_n_mnist(options: DataOptions) -> Dataset:
    """N-MNIST: 60,000 and 10,000 recordings of 34 x 34 pixels of MNIST's digits, before which a camera makes saccades.

    `root` holds tonic's folder `NMNIST` or the folders `Train` and `Test`, each with a folder of .bin files per digit.
    A tenth of the training recordings is the validation part.

    Raises:
        ImportError: tonic is missing.
        FileNotFoundError, OSError: files are missing, or the download failed.
        ValueError: a file is damaged, or an option does not fit.

    Source: G. Orchard et al., Frontiers in Neuroscience 9 (2015).
    """
    frames, source = own_options(Frames, options), event_files.tonic_module("datasets").NMNIST

    def recordings(train: bool) -> Recordings:
        name = source.train_folder if train else source.test_folder
        folder = event_files.provide(options, source, name, train) / name
        for digit in range(10):
            for path in _files(folder / str(digit), "*.bin"):
                yield event_files.read_bin(path), digit

    return _two_parts(options, lambda train: frames.split(recordings(train), 34), list(map(str, range(10))))


def load_cifar10_dvs(options: DataOptions) -> Dataset:
    """CIFAR10-DVS: 10,000 recordings of 128 x 128 pixels of CIFAR-10's images, moved before a camera.

    `root` holds tonic's folder `CIFAR10DVS` or a folder of .aedat files per class, as published first. The data have no
    test part of their own: a tenth of each class is the test part, and another one the validation part.

    Raises:
        ImportError, OSError, ValueError: as `load_n_mnist`; tonic's .aedat4 files need the package aedat.

    Source: H. Li et al., Frontiers in Neuroscience 11 (2017).
    """
    frames, source = own_options(Frames, options), event_files.tonic_module("datasets").CIFAR10DVS
    folder = event_files.provide(options, source, "airplane")
    files = [(path, label) for name, label in source.classes.items() for path in _files(folder / name, "*.aedat*")]
    labels = torch.tensor([label for _, label in files])

    def take(indices: torch.Tensor) -> Split:
        chosen = (files[index] for index in indices.tolist())
        return frames.split(((event_files.read_aedat(path), label) for path, label in chosen), 128)

    return split_dataset(options, labels, take, source.classes, test=len(files) // 10, statistics=unnormalised(2))


def load_dvs128_gesture(options: DataOptions) -> Dataset:
    """DVS128 Gesture: 1,176 and 288 recordings of 128 x 128 pixels of eleven gestures.

    `root` holds tonic's folder `DVSGesture` (.npy, milliseconds), or the folder published first: .aedat files with
    `_labels.csv` beside them, `trials_to_train.txt` and `trials_to_test.txt`. A tenth of the training recordings is the
    validation part.

    Raises:
        ImportError, OSError, ValueError: as `load_n_mnist`.

    Source: A. Amir et al., CVPR 2017.
    """
    frames, source = own_options(Frames, options), event_files.tonic_module("datasets").DVSGesture

    def recordings(train: bool) -> Recordings:
        trials = root_of(options) / f"trials_to_{'train' if train else 'test'}.txt"
        if trials.is_file():
            for name in trials.read_text().split():
                yield from event_files.read_gestures(trials.parent / name)
            return
        name = "ibmGestureTrain" if train else "ibmGestureTest"
        folder = event_files.provide(options, source, name, train) / name
        for user in sorted(path for path in folder.iterdir() if path.is_dir()):
            for path in _files(user, "*.npy"):
                yield event_files.read_npy(path), int(path.stem)

    return _two_parts(options, lambda train: frames.split(recordings(train), 128), source.classes)


def load_shd(options: DataOptions) -> Dataset:
    """The Spiking Heidelberg Digits: spikes of 700 channels of an artificial ear, of 20 spoken digits, in sequences.

    `root` holds tonic's folder `SHD`, or `shd_train.h5` and `shd_test.h5` themselves. A tenth of the training
    recordings is the validation part.

    Raises:
        ImportError, OSError, ValueError: as `load_n_mnist`.

    Source: B. Cramer et al., IEEE TNNLS 33 (2022).
    """
    bins, source = own_options(Bins, options), event_files.tonic_module("datasets").SHD

    def read(train: bool) -> Split:
        name = (source.train_zip if train else source.test_zip).removesuffix(".zip")
        folder = event_files.provide(options, source, name, train)
        return _read_spikes(folder / name, bins)

    return _two_parts(options, read, list(map(str, range(20))))


def _read_spikes(path: Path, bins: Bins) -> Split:
    h5py: Any = import_module("h5py")  # tonic, which was imported before, needs it
    try:
        with h5py.File(path) as file:
            spikes = zip(file["spikes/times"][:], file["spikes/units"][:], file["labels"][:], strict=True)
            return _split((bins.of(times, units.astype(np.int64)), int(label)) for times, units, label in spikes)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no spikes of SHD ({error}); {event_files.ADVICE}") from error


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by name, 2 before 10.

    Raises:
        FileNotFoundError: there are none.
    """
    files = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not files:
        raise FileNotFoundError(f"no {pattern} in {folder}; unpack the archive again")
    return files


def _split(recordings: Iterable[tuple[Array, int]]) -> Split:
    images, labels = zip(*recordings, strict=True)
    return Split(torch.from_numpy(np.stack(images)), torch.tensor(labels))


def _two_parts(options: DataOptions, read: Callable[[bool], Split], classes: list[str]) -> Dataset:
    """A data set with a test part of its own, in which a mirror image may be of another class.

    Args:
        options: name it.
        read: the images to train on where it is given true, else the test part.
        classes: the class of label 0, 1, ...
    """
    training = read(True)
    silence = unnormalised(training.images.shape[2])
    made = split_dataset(options, training.labels, training.take, classes, lambda: read(False), statistics=silence)
    return replace(made, mirrors=False)
