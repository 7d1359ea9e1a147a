"""The parts of a benchmark, each measured on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracegrad_benchmark import energy, memory
from tracegrad_benchmark.competitors import convolutions, tracegrad
from tracegrad_benchmark.progress import SectionProgress
from tracegrad_benchmark.timing import WARM_UP, alternate
from tracegrad_benchmark.workload import Competitor, Workload

GROWING = (tracegrad.UNSCALED, tracegrad.PER_STEP)


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Args:
        competitors: all of them.
        workload: the network and the batch.
        rounds: in how many rounds every competitor is timed.
    """

    competitors: tuple[Competitor, ...]
    workload: Workload
    rounds: int


def training(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """A training step of every competitor."""
    return _timed(benchmark.competitors, benchmark.workload, True, benchmark.rounds, progress)


def large_batch(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """A training step with and without scaling, with four times the batch."""
    own = [each for each in benchmark.competitors if each.library == tracegrad.LIBRARY and each.precision == "bf16"]
    workload = replace(benchmark.workload, batch=4 * benchmark.workload.batch)
    return _timed(own, workload, True, benchmark.rounds, progress)


def inference(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """Inference of every network; scaling plays no part in it."""
    networks = [each for each in benchmark.competitors if not each.scaled]
    return _timed(networks, benchmark.workload, False, benchmark.rounds, progress)


def growth(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """Training steps of growing work: in a third of the rounds, but three at least."""
    rounds = min(benchmark.rounds, max(3, benchmark.rounds // 3))
    axes = {axis: _grown(axis, benchmark.workload) for axis in AXES}
    progress.expect(sum(map(len, axes.values())) * len(GROWING) * (rounds + WARM_UP))
    seconds: dict[str, Any] = {}
    for axis, workloads in axes.items():
        works = {
            (each.name, size): each.build(workload).step for each in GROWING for size, workload in workloads.items()
        }
        times = alternate(works, rounds, benchmark.workload.device, progress.advance)
        seconds[axis] = _by_competitor(times)
    return {"rounds": rounds, "seconds": seconds}


def peak_memory(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """The memory of a training step, in processes of their own.

    Raises:
        ValueError: neither on a GPU nor on Linux.
    """
    if not memory.can_measure(benchmark.workload.device):
        raise ValueError("section 'memory' needs Linux or --device cuda; leave it out of --sections")
    networks = [each for each in benchmark.competitors if each.library != convolutions.LIBRARY]
    grown = [
        (axis, each, size, workload)
        for axis in ("time_steps", "batch")
        for each in GROWING
        for size, workload in _grown(axis, benchmark.workload).items()
    ]
    progress.expect(len(networks) + len(grown))

    def peak(competitor: Competitor, workload: Workload) -> int:
        measured = memory.peak_memory(competitor, workload)
        progress.advance()
        return measured

    peaks = {each.name: peak(each, benchmark.workload) for each in networks}
    growing: dict[str, Any] = {}
    for axis, each, size, workload in grown:
        growing.setdefault(axis, {}).setdefault(each.name, {})[str(size)] = peak(each, workload)
    return {"bytes": peaks, "growth": growing}


def energy_of_steps(benchmark: Benchmark, progress: SectionProgress) -> dict[str, Any]:
    """Joules of a training step of every competitor, one after the other.

    Raises:
        ValueError: the machine does not tell.
    """
    progress.expect(len(benchmark.competitors))
    found: dict[str, float] = {}
    for each in benchmark.competitors:
        step = each.build(benchmark.workload).step
        for _ in range(WARM_UP):
            step()
        found[each.name] = energy.joules(step)
        progress.advance()
    return {"joules": found}


SECTIONS: dict[str, Callable[[Benchmark, SectionProgress], dict[str, Any]]] = {
    "training": training,
    "large-batch": large_batch,
    "inference": inference,
    "growth": growth,
    "memory": peak_memory,
    "energy": energy_of_steps,
}


def measurable(device: str) -> list[str]:
    """The sections that this machine can measure."""
    cannot = {"memory": not memory.can_measure(device), "energy": not energy.packages()}
    return [section for section in SECTIONS if not cannot.get(section)]


AXES: dict[str, Callable[[Workload], Iterable[int]]] = {
    "time_steps": lambda workload: (1, 2, 4, 8),
    "batch": lambda workload: _doubling(workload.batch // 4, 4),
    "blocks": lambda workload: (1, 2, 3, 4),
    "width": lambda workload: _doubling(workload.width // 4, 3),
}
"""Sizes at which time is measured: of T, batch, depth and width."""


def _doubling(first: int, count: int) -> tuple[int, ...]:
    return tuple(max(first, 1) * 2**power for power in range(count))


def _grown(axis: str, workload: Workload) -> dict[int, Workload]:
    """Workloads by size along an axis."""
    sizes = AXES[axis](workload)
    values: Mapping[int, Any] = {size: (size,) * 3 if axis == "blocks" else size for size in sizes}
    return {size: replace(workload, **{axis: value}) for size, value in values.items()}


def _by_competitor(times: Mapping[tuple[str, int], list[float]]) -> dict[str, dict[str, list[float]]]:
    """Seconds by competitor and size; sizes are text, as in JSON."""
    result: dict[str, dict[str, list[float]]] = {}
    for (name, size), seconds in times.items():
        result.setdefault(name, {})[str(size)] = seconds
    return result


def _timed(
    competitors: Iterable[Competitor],
    workload: Workload,
    training: bool,
    rounds: int,
    progress: SectionProgress,
) -> dict[str, Any]:
    built = {competitor.name: competitor.build(workload) for competitor in competitors}
    works = {name: work.step if training else work.infer for name, work in built.items()}
    progress.expect(len(works) * (rounds + WARM_UP))
    rates = {name: work.rates(training) for name, work in built.items()}
    seconds = alternate(works, rounds, workload.device, progress.advance)
    return {"batch": workload.batch, "rates": rates, "seconds": seconds}
