"""A run is trained by one process, whichever machines share its folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tracegrad.lab.runs.run import Run


@contextmanager
def claim(run: Run) -> Generator[str | None]:
    """Claims a run for a block: a lock of the operating system beside its folder, which dies with its holder.

    Yields:
        None where the run is ours; otherwise who holds it, "HOST, process PID".

    Raises:
        OSError: the file system refuses locks, or cannot be written to.
    """
    path = run.folder.with_name(f".{run.folder.name}.lock")
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout:
        yield _holder(path)
        return
    except (OSError, NotImplementedError) as error:
        advice = "choose an --output on a file system that can be written to and has locks"
        raise OSError(f"cannot lock {path}: {getattr(error, 'strerror', None) or error}; {advice}") from error
    with held:
        path.write_text(f"{socket.gethostname()}, process {os.getpid()}\n", encoding="utf-8")
        yield None


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200] or "another process"
    except OSError:
        return "another process"
