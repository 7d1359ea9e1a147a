"""Converts a trained network without spikes, and measures the spiking one at several numbers of time steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import nn

from tracegrad.lab.data import Batches, Split
from tracegrad.lab.files import write
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.procedures.without_spikes import Calibration
from tracegrad.lab.recipe.parts import MOST_STEPS
from tracegrad.lab.report.evaluation import Part
from tracegrad.lab.report.figures import accuracy_and_spikes
from tracegrad.lab.report.page import write_page
from tracegrad.lab.report.style import STYLE
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.runs.isolation import isolated, quiet
from tracegrad.lab.studies.train_run import COUNTED
from tracegrad.methods.calibration import Mode

NEEDS: dict[str, str] = {"qcfs": "qcfs", "calibration": "relu"}
"""The kind of run that each conversion takes."""


@dataclass(frozen=True)
class Measured:
    """A network at one number of time steps.

    Args:
        time_steps: T.
        accuracy: share of images whose class is right, 0 to 1.
        spikes_per_image: over all neuron layers and time steps.
        energy_per_image_uj: the estimate of `tracegrad.measure.energy`, in microjoules.
    """

    time_steps: int
    accuracy: float
    spikes_per_image: float
    energy_per_image_uj: float


@dataclass(frozen=True)
class Conversion:
    """A network without spikes, and what became of it.

    Args:
        title: what was converted, how, and on which images it is measured.
        source: the network without spikes.
        converted: the spiking ones, T ascending.
    """

    title: str
    source: Measured
    converted: list[Measured]

    def table(self) -> Table:
        """Accuracy, the difference to the source, spikes and energy at every T."""
        header = ("T", "Accuracy (%)", "Against the source (points)", "Spikes per image (K)", "Energy per image (µJ)")
        rows = [
            (
                "source" if each is self.source else str(each.time_steps),
                number(100 * each.accuracy),
                number(100 * (each.accuracy - self.source.accuracy), sign=True),
                number(each.spikes_per_image / 1000),
                number(each.energy_per_image_uj),
            )
            for each in (*self.converted, self.source)
        ]
        return Table(self.title, header, tuple(rows))

    @mpl.rc_context(STYLE)
    def figure(self) -> Figure:
        """Accuracy, beside the source's, and spikes at every T."""
        by_steps = {each.time_steps: each for each in self.converted}
        figure = accuracy_and_spikes(
            self.title,
            {steps: each.accuracy for steps, each in by_steps.items()},
            {steps: each.spikes_per_image for steps, each in by_steps.items()},
        )
        left = figure.axes[0]
        left.axhline(100 * self.source.accuracy, color="0.4", linestyle="--", label="source, without spikes")
        left.lines[0].set_label("converted")
        left.legend()
        for axes in figure.axes:
            axes.set_xscale("log", base=2)
            axes.set_xticks(list(by_steps), list(map(str, by_steps)))
        return figure


def convert_run(
    folder: Path,
    method: Literal["qcfs", "calibration"],
    time_steps: int,
    mode: Mode = "light",
    part: Part = "test",
    images: int | None = None,
) -> tuple[Conversion, Path]:
    """Converts a run for T = 1, 2, 4, ... up to `time_steps`, and writes tables and a picture.

    Args:
        folder: of a complete run without spikes: of kind qcfs for "qcfs", of kind relu for "calibration".
        method: of conversion.
        time_steps: the largest T.
        mode: of calibration.
        part: of the data.
        images: training images to calibrate on, the first ones; 256 by default, or all where there are fewer.

    Returns:
        What was found, and the folder where it is written, conversion-... in that of the run.

    Raises:
        ValueError: no complete run, one of another kind, T out of range, or a lambda that is not positive.
        OSError: the data are missing, or the folder cannot be written to.
    """
    if not 1 <= time_steps <= MOST_STEPS:
        raise ValueError(f"time_steps must be from 1 to {MOST_STEPS:,}, not {time_steps}")
    trained = TrainedRun.read(folder)
    run, task = trained.run, trained.task
    if run.method.kind != NEEDS[method]:
        raise ValueError(
            f"{folder} is a run of kind {run.method.kind!r}, and conversion by {method} needs one of kind "
            f"{NEEDS[method]!r}; add a method of that kind to the recipe, train it, and convert its run"
        )
    of_run = procedure_of(run.method)
    calibrated = min(Calibration.images, len(trained.dataset.train)) if images is None else images
    kind = of_run if method == "qcfs" else Calibration(mode, calibrated)
    steps = sorted({*(2**power for power in range(time_steps.bit_length())), time_steps})
    with isolated(run.seed, run.setting.training.threads), quiet():
        source = _measure(trained, of_run.trained(run, trained.weights, task), part, 1)
        networks = {each: kind.network(run, trained.weights, task, each) for each in steps}
        converted = [_measure(trained, network, part, each) for each, network in networks.items()]
    name = method if method == "qcfs" else f"{method}-{mode}"
    measured_on = f"{len(getattr(trained.dataset, part))} {part} images"
    conversion = Conversion(f"{run.recipe.name}, {run.label}: {name}, {measured_on}", source, converted)
    written = folder / f"conversion-{name}"
    figures = {"figure": ("Accuracy and spikes against the number of time steps", conversion.figure())}
    write(written / "table.csv", conversion.table().csv())
    write_page(written / "conversion", conversion, [conversion.table()], figures)
    return conversion, written


def _measure(trained: TrainedRun, network: nn.Module, part: Part, time_steps: int) -> Measured:
    split: Split = getattr(trained.dataset, part)
    kind = procedure_of(trained.run.method)
    measured = kind.evaluate(trained.run, network, split, trained.dataset)
    images, _ = next(iter(Batches(split, COUNTED, dataset=trained.dataset, seed=0)))
    operations = kind.operations(network, images)
    assert operations is not None  # noqa: S101 - networks of gradients are always counted
    return Measured(time_steps, measured.accuracy, measured.spikes_per_image, operations.energy / 1e6)
