"""Files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> None:
    """Writes a file by way of a temporary one beside it, so that nobody ever sees a part of it.

    Args:
        path: of the file; missing folders above it are made.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; what was there before is there still.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as a CSV file with a header, whole or not at all.

    Raises:
        OSError: as `write`.
        ValueError: a row has a column of its own.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def sweep(folder: Path) -> None:
    """Removes temporary files from a folder and those in it: what is left of a `write` that was killed."""
    for path in folder.rglob(".*"):
        if path.suffix[1:].isdigit():
            path.unlink()
