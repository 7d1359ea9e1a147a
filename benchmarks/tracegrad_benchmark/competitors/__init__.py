"""Who is measured: tracegrad, the libraries that are installed, the network without spikes, and the bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec

from tracegrad_benchmark.competitors import convolutions, relu, tracegrad
from tracegrad_benchmark.workload import Competitor

PEERS = ("spikingjelly", "snntorch", "norse")


def competitors() -> Iterator[Competitor]:
    """All of them, the bound last; libraries that are not installed are left out, others imported in their turn."""
    yield from tracegrad.CONTESTANTS
    for package in PEERS:
        if package not in missing():
            yield from import_module(f"{__name__}.{package}").CONTESTANTS
    yield from relu.CONTESTANTS
    yield from convolutions.CONTESTANTS


def chosen(patterns: Sequence[str] | None) -> tuple[Competitor, ...]:
    """Those whose name fits a pattern, such as "SpikingJelly*"; None for all.

    Raises:
        ValueError: a pattern that no name fits.
    """
    every = tuple(competitors())
    if patterns is None:
        return every
    for pattern in patterns:
        if not any(fnmatchcase(each.name, pattern) for each in every):
            names = "; ".join(each.name for each in every)
            raise ValueError(f"no competitor is named {pattern!r}; known are: {names}")
    return tuple(each for each in every if any(fnmatchcase(each.name, pattern) for pattern in patterns))


def missing() -> list[str]:
    """Packages of libraries that are not installed."""
    return [package for package in PEERS if find_spec(package) is None]
