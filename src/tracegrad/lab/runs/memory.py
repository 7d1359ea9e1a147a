"""The peak of a process's memory over a part of its life."""

from __future__ import annotations

from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from its creation on: memory on the GPU where there is one, otherwise all that this process holds.

    The latter includes PyTorch itself and the data set, and needs Linux, whose high-water mark of resident memory is
    set back to the present.
    """

    def __init__(self) -> None:
        self._known = torch.cuda.is_available()
        if self._known:
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            RESET.write_text("5", encoding="ascii")
            self._known = True
        except OSError:  # not Linux, or a container that forbids it
            self._known = False

    def megabytes(self) -> float | None:
        """The peak so far in MB (10^6 bytes); None where it cannot be known."""
        if not self._known:
            return None
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
        line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
