"""What a benchmark has measured, kept in results.json section by section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tracegrad.lab.files import write
from tracegrad_benchmark.competitors import tracegrad
from tracegrad_benchmark.competitors.convolutions import LIBRARY as BOUND
from tracegrad_benchmark.intervals import Median, median_of, paired_ratio

FILE = "results.json"
TRACEGRAD = tracegrad.UNSCALED.name
SPIKINGJELLY = "SpikingJelly, bf16"
TIMED = ("training", "large-batch", "inference")
"""Sections that time competitors side by side."""


class Results:
    """Measurements of one machine and one workload.

    Args:
        folder: of the file; created with the first section.
        facts: machine, workload, rounds and competitors, which all sections share.

    Raises:
        ValueError: the folder holds results with other facts, or a damaged file.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))
        self.sections: dict[str, Any] = {}
        if self.path.exists():
            self.sections = self._read()

    def _read(self) -> dict[str, Any]:
        advice = "remove it, or give another --output"
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            facts, sections = content["facts"], dict(content["sections"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); {advice}") from None
        other = [name for name in self.facts if facts.get(name) != self.facts[name]]
        if other:
            raise ValueError(f"{self.path} was measured with another {', '.join(other)}; {advice}")
        return sections

    def add(self, section: str, measured: Mapping[str, Any]) -> None:
        """Writes the file with one section more."""
        self.sections[section] = {"date": datetime.now(UTC).date().isoformat(), **measured}
        content = {"facts": self.facts, "sections": self.sections}
        write(self.path, json.dumps(content, indent=1) + "\n")

    def precision(self, competitor: str) -> str:
        """Of a competitor, by its name."""
        return self.facts["competitors"][competitor]["precision"]

    def library(self, competitor: str) -> str:
        """Of a competitor, by its name."""
        return self.facts["competitors"][competitor]["library"]

    def rows(self, section: str) -> list[Row]:
        """Competitors of a timed section; none if it was not measured."""
        measured = self.sections.get(section)
        if measured is None:
            return []
        seconds: dict[str, Sequence[float]] = measured["seconds"]
        memory = self.sections.get("memory", {}).get("bytes", {}) if section == "training" else {}
        rates: dict[str, Sequence[float]] = measured.get("rates", {})
        return [
            Row(
                name,
                values,
                measured["batch"],
                self._references(name, seconds),
                memory.get(name),
                tuple(rates.get(name, ())),
            )
            for name, values in seconds.items()
        ]

    def _references(self, name: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
        bound = f"{BOUND}, {self.precision(name)}"
        found = {"tracegrad": TRACEGRAD, "SpikingJelly": SPIKINGJELLY, "convolutions": bound}
        return {title: seconds[reference] for title, reference in found.items() if reference in seconds}


class Row:
    """One competitor in one section.

    Attributes:
        name: of the competitor.
        seconds: of one step or inference.
        images_per_second: at the median.
        ratios: its time relative to that of a reference in the same round: "tracegrad" (unscaled, bf16),
            "SpikingJelly" (bf16) and "convolutions" (in the competitor's precision).
        memory: bytes above an idle process; None if not measured.
        rates: firing rates of its layers; empty where nothing fires.
    """

    def __init__(
        self,
        name: str,
        seconds: Sequence[float],
        batch: int,
        references: Mapping[str, Sequence[float]],
        memory: int | None,
        rates: Sequence[float],
    ) -> None:
        self.name = name
        self.seconds = median_of(seconds)
        self.images_per_second = batch / self.seconds.value
        self.ratios: dict[str, Median] = {
            title: paired_ratio(seconds, reference) for title, reference in references.items()
        }
        self.memory = memory
        self.rates = rates
