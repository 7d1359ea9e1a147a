"""Writes the sections on one study as Markdown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tracegrad.lab.report import comparing, figures, pictures, tables
from tracegrad.lab.report.paper import CITATION, reported_for
from tracegrad.lab.report.pictures import QUANTITIES
from tracegrad.lab.report.quantities import SPIKES
from tracegrad.lab.report.style import STYLE, to_element
from tracegrad.lab.report.table import Table, escape
from tracegrad.lab.runs.run import to_yaml
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy

INTERVALS = (
    "Intervals are t intervals of the paired differences, seed by seed; each stands alone. The p of the t test is "
    "corrected by Holm over the comparisons of the study, so that a study without any effect makes a claim with a "
    "chance of 5 %; the sign-flip test is exact and assumes nothing of the spread."
)
CLAIMS = (
    "The recipe's claims, each tested by paired t tests over the seeds at 5 %. Better than several methods takes the "
    "largest p of the comparisons (intersection-union); within a margin are two one-sided tests. Holm's correction is "
    "over the claims of a kind. What is not supported is not refuted: these runs do not show it."
)
MEASURED = (
    "R_hat (Eq. 6) over all weights and time steps of a synapse, measured after every epoch on the first validation "
    "batch, and the factor on the gradient that follows from it (Eq. 7); means over the seeds."
)


class StudyWriter:
    """Writes about one study.

    Args:
        study: its runs.
        synapse: the one to show in pictures; by default one in the middle of the network.
        recipe_file: where the recipe of these runs is written, for the command that repeats them.

    Attributes:
        figures: by name, the SVG elements of the images in what has been written.
    """

    def __init__(self, study: RunsOfStudy, synapse: str | None, recipe_file: Path) -> None:
        self.study, self.synapse, self.recipe_file = study, synapse, recipe_file
        self.figures: dict[str, str] = {}

    def blocks(self) -> list[str]:
        """Headings, sentences, tables, images and listings in their order, each a block of Markdown."""
        with mpl.rc_context(STYLE):
            return [
                *("### Accuracy and spikes", *self._results()),
                *("### Accuracy against spikes", self._accuracy_against_spikes()),
                *("### Learning curves", self._learning()),
                *("### Firing rates", *self._rates()),
                *("### Relation and scale over training", *self._relations()),
                *self._relation_picture(),
                *("### Spikes and traces", self._raster()),
                *("### To repeat it", *self._repeat()),
            ]

    def _results(self) -> list[str]:
        study, differences, claims = (
            self.study,
            comparing.differences_table(self.study),
            comparing.claims_table(self.study),
        )
        diverged = "; ".join(str(run.diverged) for run in study.diverged)
        unfinished = ", ".join(f"{run.label} ({epochs} epochs)" for run, epochs in study.unfinished)
        reported = f"The rows of {CITATION} are from its tables; it gives no standard deviation."
        return [
            tables.study_table(study).markdown(),
            *([reported] if reported_for(study.recipe) else []),
            *([*_markdown(differences, comparing.images_table(study)), INTERVALS] if differences else []),
            *([claims.markdown(), CLAIMS] if claims else []),
            *([escape(f"Diverged, and counted as failures: {diverged}.")] if diverged else []),
            *([escape(f"Not finished, and not counted: {unfinished}.")] if unfinished else []),
        ]

    def _accuracy_against_spikes(self) -> str:
        caption = "Test accuracy against spikes per image. Higher is more accurate, further left is more economical."
        return self._image("spikes", figures.accuracy_against(SPIKES, self.study), caption)

    def _learning(self) -> str:
        figure = figures.learning_curves(self.study)
        caption = "The line is the mean over the seeds, the band reaches from the lowest to the highest seed."
        return self._image("learning", figure, caption) if figure else "Left out: no run has a metrics.csv."

    def _rates(self) -> list[str]:
        figure = figures.firing_rates_of_layers(self.study)
        if figure is None:
            return [_without("the number of neurons per layer", "result.json")]
        caption = "How often the neurons of each layer fire for a test image: mean over the seeds, lowest to highest."
        return [self._image("rates", figure, caption), *_markdown(tables.rates_table(self.study))]

    def _relations(self) -> list[str]:
        table = tables.relations_table(self.study)
        if table is None:
            return [_without("R_hat", "relations.csv")]
        ends = (
            "R_hat of every scaled synapse over the training",
            "what the gradients of these weights are multiplied by",
        )
        images: list[str] = []
        for index, method in enumerate(self.study.recipe.methods):
            for quantity, end in zip(QUANTITIES, ends, strict=True):
                if figure := pictures.relations_over_training(self.study, method, quantity):
                    images.append(self._image(f"{quantity}-{index}", figure, f"{method}: {end}."))
        return [MEASURED, *images, table.markdown()]

    def _relation_picture(self) -> list[str]:
        synapse, runs = self._recorded("relation")
        if not runs:
            return ["### Relation as a picture", _without("R_hat of single synapses", "probe.npz")]
        first = {run.run.name: run for run in sorted(runs, key=lambda run: -run.run.seed)}
        in_order = {method: first[method] for method in self.study.recipe.methods if method in first}
        caption = f"R_hat of {synapse} after the last epoch: one row per output, one column per input channel."
        image = self._image("picture", pictures.relation_picture(in_order, synapse), caption)
        return [f"### {escape(f'Relation of {synapse}')}", image]

    def _raster(self) -> str:
        synapse, runs = self._recorded("pre_spikes")
        if not runs:
            return _without("spikes", "probe.npz")
        run = max(runs, key=lambda run: (run.run.method.alpha > 0, -run.run.seed))
        caption = (
            f"Spikes at both ends of {synapse} for the first validation image, after the last epoch of "
            f"{run.run.label}. A weight connects the two coloured neurons; below are their traces (Eq. 5): a spike "
            "adds 1, and every step leaves 1/e."
        )
        return self._image("raster", pictures.spike_raster(run, synapse), caption)

    def _recorded(self, array: str) -> tuple[str, list[FinishedRun]]:
        """The chosen synapse, or one in the middle of those with an array in a run's probe, and the runs with it."""
        ending, every = f"/{array}", self.study.runs.values()
        synapses = dict.fromkeys(key.removesuffix(ending) for run in every for key in run.probe if key.endswith(ending))
        synapse = self.synapse or next(iter([*synapses][len(synapses) // 2 :]), "")
        return synapse, [run for run in every if f"{synapse}{ending}" in run.probe]

    def _repeat(self) -> list[str]:
        results = [run.result for run in self.study.runs.values()]
        commands = "\n".join(dict.fromkeys(result["command"] for result in results if "command" in result))
        again = f"tracegrad study {shlex.quote(self.recipe_file.name)}"
        return [
            tables.methods_table(self.study).markdown(),
            *_listing("Repeats these runs", again),
            *(_listing("Commands as they were given", commands) if commands else []),
            tables.environment_table(self.study).markdown(),
            *_listing(f"The recipe, {self.recipe_file.name}", to_yaml(self.study.recipe)),
        ]

    def _image(self, key: str, figure: Figure, caption: str) -> str:
        key = f"{''.join(sign if sign.isalnum() else '-' for sign in self.study.name)}-{key}"
        self.figures[key] = to_element(figure, key)
        return f"![{escape(caption)}]({key})"


def _without(what: str, file: str) -> str:
    return f"Left out: no run of this study recorded {what} ({file})."


def _markdown(*found: Table | None) -> list[str]:
    return [table.markdown() for table in found if table]


def _listing(title: str, text: str) -> list[str]:
    """Lines to copy, whatever is in them."""
    fence = "`" * (3 + max(map(len, re.findall("`{3,}", text)), default=0))
    return [escape(f"{title}:"), f"{fence}\n{text.rstrip()}\n{fence}"]
