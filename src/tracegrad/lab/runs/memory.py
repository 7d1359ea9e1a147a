"""The peak of a process's memory over a part of its life."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
