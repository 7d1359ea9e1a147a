"""Writes recordings in the formats in which event data sets are published, by hand."""

import struct
from pathlib import Path

import numpy as np


def bin_event(x, y, t, p):
    """N-MNIST's five bytes."""
    return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])


def write_bin(path: Path, events) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bin_event(*event) for event in events))


def write_aedat2(path: Path, events) -> None:
    """AEDAT 2.0 of a DVS128 that stands on its side: big-endian pairs of address and time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [(127 - x << 8 | 127 - y << 1 | 1 - p, t) for x, y, t, p in events]
    path.write_bytes(b"#!AER-DAT2.0\r\n# by hand\r\n" + b"".join(struct.pack(">II", *word) for word in words))


def packet(events, kind=1):
    header = struct.pack("<HHIIIIII", kind, 1, 8, 4, 0, len(events), len(events), len(events))
    return header + b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in events)


def write_aedat3(path: Path, events, gestures) -> None:
    """AEDAT 3.1 in two packets of polarity events with one of another kind between them, and the table of gestures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = len(events) // 2
    packets = packet(events[:half]) + packet([(0, 0, 0, 0)], kind=2) + packet(events[half:])
    path.write_bytes(b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + packets)
    rows = "".join(f"{label},{start},{end}\n" for label, start, end in gestures)
    path.with_name(f"{path.stem}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + rows)


def write_npy(path: Path, events) -> None:
    """DVS128 Gesture as tonic offers it: rows of x, y, sign and milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([(x, y, p, t) for x, y, t, p in events], dtype=np.int64))


def write_shd(path: Path, recordings) -> None:
    """Times in seconds and channels of each recording, and its label."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", len(recordings), h5py.vlen_dtype(np.float32))
        units = file.create_dataset("spikes/units", len(recordings), h5py.vlen_dtype(np.uint16))
        for number, (seconds, channels, _) in enumerate(recordings):
            times[number], units[number] = np.array(seconds, np.float32), np.array(channels, np.uint16)
        file["labels"] = np.array([label for _, _, label in recordings], np.uint16)
