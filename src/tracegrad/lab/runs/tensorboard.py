"""The metrics of a run as a file for TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tracegrad.lab.files import write

FILE = "events.out.tfevents.0.tracegrad"


def write_events(folder: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Writes all rows anew, whole or not at all; nothing where the package tensorboard is not installed.

    Args:
        folder: for the file.
        rows: with the column "epoch".
        names: of the columns to show.

    Raises:
        OSError: the folder cannot be written to.
    """
    if not find_spec("tensorboard"):
        return
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] - made at run time
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    records, time = RecordWriter(file), 0.0  # time since the training began
    records.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        time += row["seconds"]
        values = [Summary.Value(tag=name, simple_value=row[name]) for name in names]
        event = Event(wall_time=time, step=int(row["epoch"]), summary=Summary(value=values))
        records.write(event.SerializeToString())
    write(folder / FILE, file.getvalue())
