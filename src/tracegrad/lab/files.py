"""Files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tracegrad.lab.ranks import is_first

MARK = "tracegrad"


def write(path: Path, content: str | bytes | Callable[[BinaryIO], object], keep: Path | None = None) -> None:
    """Writes a file by way of a temporary one beside it, so that nobody ever sees a part of it, not after a power cut.

    Of several processes that train together, the first one alone writes.

    Args:
        path: of the file, or a link to it; missing folders above it are made.
        content: text, written as UTF-8, bytes, or a function that writes into the open file.
        keep: where what was there before is kept.

    Raises:
        OSError: there is something that is no regular file, the folder cannot be written to, or the disk is full;
            what was there before is there still.
    """
    if not is_first():
        return
    try:
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not path.is_file():
            raise OSError(None, "there is something that is no regular file")  # noqa: TRY301
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{MARK}-{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if keep and path.exists():
                path.replace(keep)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise OSError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def _sync_folder(folder: Path) -> None:
    """Has the new name of a file survive a power cut, where folders can be opened: not on Windows."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    """Removes what is left of a `write` that was killed from a folder and those in it, and nothing else."""
    if not is_first():
        return
    for path in folder.rglob(f".*.{MARK}-*"):
        if re.fullmatch(rf"\..+\.{MARK}-[0-9a-f]+", path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
