"""Energy of the processor's package in joules, where the machine tells it: RAPL counters, as Linux shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
LEAST_SECONDS = 2.0
"""A counter moves about once a millisecond: so long a run makes that negligible."""


def packages() -> list[Path]:
    """The counters of whole packages that may be read; reading them takes root on most systems."""
    found: list[Path] = []
    for folder in sorted(POWERCAP.glob("*-rapl:*")):
        try:
            if (folder / "name").read_text(encoding="ascii").startswith("package"):
                int((folder / "energy_uj").read_text(encoding="ascii"))
                found.append(folder)
        except (OSError, ValueError):
            continue
    return found


def joules(work: Callable[[], None], least_seconds: float = LEAST_SECONDS) -> float:
    """Joules of one call of `work`, the machine's idle consumption included.

    Raises:
        ValueError: no counter can be read.
    """
    counters = packages()
    if not counters:
        raise ValueError(f"no energy counter of a package can be read in {POWERCAP}; leave 'energy' out of --sections")
    calls, begun, before = 0, time.perf_counter(), [_microjoules(each) for each in counters]
    while calls == 0 or time.perf_counter() - begun < least_seconds:
        work()
        calls += 1
    used = (_difference(each, first) for each, first in zip(counters, before, strict=True))
    return sum(used) / 1e6 / calls


def _microjoules(counter: Path) -> int:
    return int((counter / "energy_uj").read_text(encoding="ascii"))


def _difference(counter: Path, before: int) -> int:
    """Since `before`; the counter may have begun anew once."""
    after = _microjoules(counter)
    return after - before if after >= before else after - before + int((counter / "max_energy_range_uj").read_text())
