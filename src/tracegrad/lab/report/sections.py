"""Writes the sections on one study."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from tracegrad.lab.report import figures, pictures, tables
from tracegrad.lab.report.claims import claims_table
from tracegrad.lab.report.comparison import study_table
from tracegrad.lab.report.content import Chapter, Listing, Picture, Section
from tracegrad.lab.report.drawing import Look, report_style, to_svg
from tracegrad.lab.report.paper import CITATION, reported_for
from tracegrad.lab.report.summary import summarize_in_words
from tracegrad.lab.report.table import Table
from tracegrad.lab.runs.run import to_yaml
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy

BAND = "The line is the mean over the seeds, the band reaches from the lowest to the highest seed."


class StudyWriter:
    """Writes about one study.

    Args:
        study: its runs.
        synapse: the one to show in pictures; by default one in the middle of the network.
        recipe_file: where the recipe of these runs is written, for the command that repeats them.
    """

    def __init__(self, study: RunsOfStudy, synapse: str | None, recipe_file: Path) -> None:
        self.study = study
        self.look = Look(study.recipe.methods)
        self.recipe_file = recipe_file
        self.synapse = synapse

    def chapter(self) -> Chapter:
        """The whole study."""
        with report_style():
            sections = (
                self._results(),
                self._accuracy_against_spikes(),
                self._learning(),
                self._rates(),
                self._relations(),
                self._relation_picture(),
                self._raster(),
                self._repeat(),
            )
        return Chapter(self.study.name, self.study.recipe.description, summarize_in_words(self.study), sections)

    def _results(self) -> Section:
        parts: list[str | Table] = [study_table(self.study)]
        if reported_for(self.study.recipe):
            parts.append(f"The rows of {CITATION} are from its tables; it gives no standard deviation.")
        differences = tables.differences_table(self.study)
        if differences:
            parts += [differences, *filter(None, [tables.images_table(self.study)]), _INTERVALS]
        unfinished = [f"{run.label} ({epochs} epochs)" for run, epochs in self.study.unfinished]
        if claims := claims_table(self.study):
            parts += [claims, _CLAIMS]
        if self.study.diverged:
            parts.append(
                f"Diverged, and counted as failures: {'; '.join(str(run.diverged) for run in self.study.diverged)}."
            )
        if unfinished:
            parts.append(f"Not finished, and not counted: {', '.join(unfinished)}.")
        return Section("Accuracy and spikes", tuple(parts))

    def _accuracy_against_spikes(self) -> Section:
        caption = "Test accuracy against spikes per image. Higher is more accurate, further left is more economical."
        picture = self._picture("spikes", figures.accuracy_against_spikes(self.study, self.look), caption)
        return Section("Accuracy against spikes", (picture,))

    def _learning(self) -> Section:
        figure = figures.learning_curves(self.study, self.look)
        if figure is None:
            return Section("Learning curves", ("Left out: no run has a metrics.csv.",))
        return Section("Learning curves", (self._picture("learning", figure, BAND),))

    def _rates(self) -> Section:
        figure, table = figures.firing_rates_of_layers(self.study, self.look), tables.rates_table(self.study)
        if figure is None or table is None:
            return Section("Firing rates", (_without("the number of neurons per layer", "result.json"),))
        caption = "How often the neurons of each layer fire for a test image: mean over the seeds, lowest to highest."
        return Section("Firing rates", (self._picture("rates", figure, caption), table))

    def _relations(self) -> Section:
        parts = [part for method in self.study.recipe.methods for part in self._relations_of(method)]
        table = tables.relations_table(self.study)
        if table is None:
            return Section("Relation and scale over training", (_without("R_hat", "relations.csv"),))
        return Section("Relation and scale over training", (_WHAT_IS_MEASURED, *parts, table))

    def _relations_of(self, method: str) -> Iterator[Picture]:
        captions = {
            "relation": f"{method}: R_hat of every scaled synapse over the training.",
            "scale": f"{method}: what the gradients of these weights are multiplied by.",
        }
        for quantity, caption in captions.items():
            figure = pictures.relations_over_training(self.study, method, quantity, self.look)
            if figure is not None:
                index = list(self.study.recipe.methods).index(method)
                yield self._picture(f"{quantity}-{index}", figure, caption)

    def _relation_picture(self) -> Section:
        runs: dict[str, FinishedRun] = {}
        synapse = self.synapse or _middle(self.study, "/relation")
        for (method, _), run in sorted(self.study.runs.items(), key=lambda item: item[0][1]):
            if f"{synapse}/relation" in run.probe:
                runs.setdefault(method, run)
        if synapse is None or not runs:
            return Section("Relation as a picture", (_without("R_hat of single synapses", "probe.npz"),))
        caption = f"R_hat of {synapse} after the last epoch: one row per output, one column per input channel."
        picture = self._picture("picture", pictures.relation_picture(runs, synapse), caption)
        return Section(f"Relation of {synapse}", (picture,))

    def _raster(self) -> Section:
        synapse = self.synapse or _middle(self.study, "/pre_spikes")
        runs = [run for run in self.study.runs.values() if f"{synapse}/pre_spikes" in run.probe]
        if synapse is None or not runs:
            return Section("Spikes and traces", (_without("spikes", "probe.npz"),))
        run = max(runs, key=lambda run: (run.run.method.alpha > 0, -run.run.seed))
        caption = (
            f"Spikes at both ends of {synapse} for the first validation image, after the last epoch of "
            f"{run.run.label}. A weight connects the two coloured neurons; below are their traces (Eq. 5): a spike "
            "adds 1, and every step leaves 1/e."
        )
        return Section("Spikes and traces", (self._picture("raster", pictures.spike_raster(run, synapse), caption),))

    def _repeat(self) -> Section:
        results = [run.result for run in self.study.runs.values()]
        commands = list(dict.fromkeys(result["command"] for result in results if "command" in result))
        again = f"tracegrad study {shlex.quote(self.recipe_file.name)}"
        parts = [
            tables.methods_table(self.study),
            Listing("Repeats these runs", again),
            Listing("Commands as they were given", "\n".join(commands)),
            tables.environment_table(self.study),
            Listing(f"The recipe, {self.recipe_file.name}", to_yaml(self.study.recipe)),
        ]
        return Section(
            "To repeat it", tuple(part for part in parts if not (isinstance(part, Listing) and not part.text))
        )

    def _picture(self, key: str, figure: Figure, caption: str) -> Picture:
        key = f"{_slug(self.study.name)}-{key}"
        return Picture(key, to_svg(figure, key), caption)


_INTERVALS = (
    "Intervals are t intervals of the paired differences, seed by seed; each stands alone. The p of the t test is "
    "corrected by Holm over the comparisons of the study, so that a study without any effect makes a claim with a "
    "chance of 5 %; the sign-flip test is exact and assumes nothing of the spread."
)
_CLAIMS = (
    "The recipe's claims, each tested by paired t tests over the seeds at 5 %. Better than several methods takes the "
    "largest p of the comparisons (intersection-union); within a margin are two one-sided tests. Holm's correction is "
    "over the claims of a kind. What is not supported is not refuted: these runs do not show it."
)
_WHAT_IS_MEASURED = (
    "R_hat (Eq. 6) over all weights and time steps of a synapse, measured after every epoch on the first validation "
    "batch, and the factor on the gradient that follows from it (Eq. 7); means over the seeds."
)


def _without(what: str, file: str) -> str:
    return f"Left out: no run of this study recorded {what} ({file})."


def _middle(study: RunsOfStudy, suffix: str) -> str | None:
    """The synapse in the middle of those with some array in a run's probe."""
    synapses = list(
        dict.fromkeys(
            key.removesuffix(suffix) for run in study.runs.values() for key in run.probe if key.endswith(suffix)
        )
    )
    return synapses[len(synapses) // 2] if synapses else None


def _slug(name: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in name)
