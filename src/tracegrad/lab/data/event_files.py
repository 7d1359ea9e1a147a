"""Files in which recordings of event cameras are published, found or fetched, and read with tonic.

What is damaged is refused by name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.lab.data.options import DataOptions, root_of

Events = np.ndarray[Any, np.dtype[np.void]]
"""A structured array [N] with the fields x (column), y (row), t (microseconds) and p (1 for ON, 0 for OFF)."""

FIELDS = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
ADVICE = "it is truncated or bit-flipped; replace it by a good copy"
POLARITY_EVENTS, PACKET_HEADER = 1, 28  # AEDAT 3.1


def tonic_module(name: str) -> Any:
    """The module `tonic.NAME`.

    Raises:
        ImportError: tonic is not installed.
    """
    try:
        return import_module(f"tonic.{name}")
    except ImportError as error:
        raise ImportError(f"data of event cameras need tonic ({error}): pip install 'tracegrad[event-data]'") from error


def provide(options: DataOptions, source: Any, inside: str, train: bool | None = None) -> Path:
    """The folder of a data set's files: `root/NAME`, NAME being the class's, as tonic has it, or `root`.

    Args:
        options: say where, and whether to fetch what is not there yet, check its digest, and unpack it.
        source: tonic's class, which knows address and digest of the archive.
        inside: a file or folder that is there once the archive is unpacked.
        train: which of two archives it is, of the training or of the test part; None where there is a single one.

    Raises:
        FileNotFoundError: there is no such file or folder.
        OSError: the download failed, or its digest is wrong.
    """
    root = root_of(options)
    folder = root / source.__name__
    for place in (folder, root):
        if (place / inside).exists():
            return place
    if not options.download:
        raise FileNotFoundError(
            f"no {inside} in {root} or {folder}: set data.root to its folder, or data.download to true"
        )
    part = {None: "", True: "train_", False: "test_"}[train]
    filename = getattr(source, f"{part}filename", None) or getattr(source, f"{part}zip")
    address = getattr(source, f"{part}url", None) or source.base_url + filename
    digest = getattr(source, f"{part}md5", None) or source.file_md5
    archives = tonic_module("download_utils")
    try:
        archives.download_and_extract_archive(address, folder, filename=filename, md5=digest)
        for inner in getattr(source, "data_filename", ()):  # archives in the archive
            archives.extract_archive(str(folder / inner))
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot get {filename} from {address} into {folder}: {error}") from error
    return folder


def read_bin(path: Path) -> Events:
    """A recording of N-MNIST: 5 bytes an event, x, y, and the sign over 23 bits of microseconds."""
    if not path.stat().st_size or path.stat().st_size % 5:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, and events have 5 each; {ADVICE}")
    return checked(tonic_module("io").read_mnist_file(str(path), FIELDS), (34, 34), path)


def read_aedat(path: Path) -> Events:
    """A recording of CIFAR10-DVS: AEDAT 2.0 of a DVS128, or AEDAT 4 as tonic offers it, which needs the package aedat.

    The camera stood on its side: columns are the address's rows, as in SpikingJelly.
    """
    if path.suffix == ".aedat4":
        return _read_aedat4(path)
    address, time = _words(path, 2.0, ">u4")
    return checked(
        _events(127 - (address >> 8 & 127), 127 - (address >> 1 & 127), time, 1 - (address & 1)), (128, 128), path
    )


def _read_aedat4(path: Path) -> Events:
    try:
        found = tonic_module("io").read_aedat4(str(path))
    except ImportError as error:
        raise ImportError(f"{path.name} is AEDAT 4: pip install aedat") from error
    except Exception as error:  # whatever the decoder, which is not in Python, raises
        raise ValueError(f"{path} is no AEDAT 4 ({error}); {ADVICE}") from error
    t, x, y, p = (found[name] for name in found.dtype.names)
    return checked(_events(x, y, t, p), (128, 128), path)


def read_gestures(path: Path) -> Iterator[tuple[Events, int]]:
    """The gestures of a recording of DVS128 Gesture, AEDAT 3.1, with labels from 0, by the `_labels.csv` beside it."""
    address, time = _words(path, 3.1, "<u4")
    events = checked(_events(address >> 17 & 0x1FFF, address >> 2 & 0x1FFF, time, address >> 1 & 1), (128, 128), path)
    table = path.with_name(f"{path.stem}_labels.csv")
    try:
        with table.open(newline="") as file:
            rows = [tuple(map(int, row)) for row in list(csv.reader(file))[1:]]
        if not rows or any(len(row) != 3 or not 1 <= row[0] <= 11 or row[1] >= row[2] for row in rows):
            raise ValueError("its rows must be a class from 1 to 11, a start and a later end in microseconds")  # noqa: TRY301
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{table} holds no labels ({error}); {ADVICE}") from error
    for label, start, end in rows:
        first, last = np.searchsorted(events["t"], [start, end])
        yield checked(events[first:last], (128, 128), f"{path}, {start} to {end}"), label - 1


def read_npy(path: Path) -> Events:
    """A gesture of DVS128 Gesture as tonic offers it: rows of x, y, sign and milliseconds."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of NumPy ({error}); {ADVICE}") from error
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"{path} has shape {list(rows.shape)}, not [events, 4]; {ADVICE}")
    return checked(_events(rows[:, 0], rows[:, 1], rows[:, 3] * 1000, rows[:, 2]), (128, 128), path)


def checked(events: Events, size: tuple[int, int], where: object) -> Events:
    """Events that can be: some, in the order of time, on a sensor of `size` (height and width).

    Raises:
        ValueError: others.
    """
    height, width = size
    if not len(events):
        raise ValueError(f"{where} holds no events; {ADVICE}")
    x, y, t, p = (events[name] for name in ("x", "y", "t", "p"))
    if min(x.min(), y.min(), p.min()) < 0 or x.max() >= width or y.max() >= height or p.max() > 1:
        raise ValueError(f"{where} holds an event outside of the sensor of {height} x {width} pixels; {ADVICE}")
    if (np.diff(t) < 0).any():
        raise ValueError(f"{where} holds events that are not in the order of time; {ADVICE}")
    return events


def _events(x: Any, y: Any, t: Any, p: Any) -> Events:
    events = np.empty(len(x), FIELDS)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p
    return events


def _words(path: Path, version: float, kind: str) -> Iterator[np.ndarray[Any, Any]]:
    """Addresses and times, int64, of AEDAT 2.0 (no packets) or 3.1 (packets of polarity events)."""
    content = path.read_bytes()
    start = 0
    while content[start : start + 1] == b"#":
        start = content.find(b"\n", start) + 1 or len(content)
    if f"#!AER-DAT{version}".encode() not in content[:start]:
        raise ValueError(f"{path} does not begin with #!AER-DAT{version}; {ADVICE}")
    body = content[start:] if version < 3 else b"".join(_packets(content[start:], path))
    if len(body) % 8:
        raise ValueError(f"{path} ends within an event; {ADVICE}")
    words = np.frombuffer(body, kind).astype(np.int64).reshape(-1, 2)
    return iter(words.T)


def _packets(content: bytes, path: Path) -> Iterator[bytes]:
    """The polarity events of packets, whose headers say their type, the size of an event, and how many there are."""
    place = 0
    while place < len(content):
        header = content[place : place + PACKET_HEADER]
        kind, size = (int.from_bytes(header[a:b], "little") for a, b in ((0, 2), (4, 8)))
        end = place + PACKET_HEADER + size * int.from_bytes(header[20:24], "little")
        if len(header) < PACKET_HEADER or end > len(content) or (kind == POLARITY_EVENTS and size != 8):
            raise ValueError(f"{path} ends within a packet, or holds something else; {ADVICE}")
        if kind == POLARITY_EVENTS:
            yield content[place + PACKET_HEADER : end]
        place = end
