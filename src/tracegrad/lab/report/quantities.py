"""What reports read out of runs: single numbers, firing rates of layers, relations by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tracegrad.lab.report.table import number
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy
from tracegrad.measure.relations import STATISTICS


@dataclass(frozen=True)
class Quantity:
    """A number that every run has.

    Args:
        label: what it is, with its unit.
        field: of result.json.
        factor: on the number there.
        digits: to show.
        per: another field to divide by.
    """

    label: str
    field: str
    factor: float = 1.0
    digits: int = 2
    per: str | None = None

    def __call__(self, run: FinishedRun) -> float:
        """The number; NaN where the run has not recorded it."""
        value, divisor = run.result.get(self.field), 1 if self.per is None else run.result.get(self.per)
        return math.nan if value is None or not divisor else self.factor * value / divisor

    def mean(self, runs: Iterable[FinishedRun]) -> str:
        """The mean over runs, as text."""
        return number(fmean(map(self, runs)), self.digits)


ACCURACY = Quantity("Test accuracy (%)", "test_accuracy", 100)
SPIKES = Quantity("Spikes per test image (thousands)", "spikes_per_image", 1e-3)
ENERGY = Quantity("Energy per image (µJ), estimated", "energy_per_image_uj")


def firing_rates(study: RunsOfStudy) -> dict[str, dict[str, list[float]]]:
    """Spikes per neuron and time step on the test images, a value per run, by method and layer.

    Methods and layers of which no run recorded the number of neurons are left out.
    """
    rates: dict[str, dict[str, list[float]]] = {}
    for method in study.recipe.methods:
        for run in study.of(method):
            steps, neurons = run.run.setting.model.time_steps, run.result.get("neurons_per_layer", {})
            for layer, count in run.result["spikes_per_layer"].items():
                if layer in neurons:
                    rate = count / (neurons[layer] * steps)
                    rates.setdefault(method, {}).setdefault(layer, []).append(rate)
    return rates


def relations_by_epoch(runs: Sequence[FinishedRun], quantity: str) -> dict[str, dict[float, dict[str, float]]]:
    """Statistics of a quantity of relations.csv by synapse and epoch in ascending order, means over runs."""
    rows: dict[str, dict[float, list[dict[str, float]]]] = {}
    for run in runs:
        for row in run.relations:
            if row["quantity"] == quantity:
                rows.setdefault(row["synapse"], {}).setdefault(row["epoch"], []).append(row)
    return {
        synapse: {
            epoch: {name: fmean(row[name] for row in at) for name in STATISTICS} for epoch, at in sorted(epochs.items())
        }
        for synapse, epochs in rows.items()
    }
