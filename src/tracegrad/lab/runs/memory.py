"""The memory of a process: what it keeps, and its peak over a part of its life."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LARGEST = 2**31 - 1
KEPT = {-1: LARGEST, -2: 2**26, -3: LARGEST}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets the process keep the memory of freed tensors for the next ones, until it ends.

    Otherwise glibc gives large blocks back to the system, which hands out cleared pages in every step anew: an eighth
    to a fifth of the step of a small network on a CPU. Without glibc nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in KEPT.items():
            mallopt(parameter, value)


class PeakMemory:
    """Measures from its creation on: memory on the GPU where there is one, otherwise all that this process holds.

    The latter includes PyTorch itself and the data set, and needs Linux, whose high-water mark of resident memory is
    set back to the present.
    """

    def __init__(self) -> None:
        self._cuda = self._known = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError):  # not Linux, or a container that forbids it
            RESET.write_text("5", encoding="ascii")
            self._known = True

    def megabytes(self) -> float | None:
        """The peak so far in MB (10^6 bytes); None where it cannot be known."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() / 1e6
        found = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text(encoding="ascii")) if self._known else None
        return int(found[1]) * 1024 / 1e6 if found else None
