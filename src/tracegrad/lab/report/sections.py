"""What a report says about one study, section by section."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tracegrad.lab.report import comparing, figures, tables
from tracegrad.lab.report.page import Block
from tracegrad.lab.report.paper import CITATION, reported_for
from tracegrad.lab.report.quantities import SPIKES, firing_rates
from tracegrad.lab.report.table import escape
from tracegrad.lab.runs.run import to_yaml
from tracegrad.lab.studies.collect import RunsOfStudy

REPORTED = f"The rows of {CITATION} are from its tables; it gives no standard deviation."
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
AGAINST = "Test accuracy against spikes per image. Higher is more accurate, further left is more economical."
RATES = "How often the neurons of each layer fire for a test image: mean over the seeds, lowest to highest."


def sections(study: RunsOfStudy, synapse: str | None, recipe_file: Path) -> list[Block]:
    """Everything about a study.

    Args:
        study: its runs.
        synapse: the one to show in pictures; by default one in the middle of the network.
        recipe_file: where the recipe of these runs is written, for the command that repeats them.
    """
    shown = synapse or _middle(study.synapses("relation"))
    rates, relations = firing_rates(study), tables.relations_table(study)
    blocks = [
        "### Accuracy and spikes",
        *_results(study),
        "### Accuracy against spikes",
        {"spikes": (AGAINST, figures.accuracy_against(SPIKES, study))},
        "### Learning curves",
        figures.learning_curves(study) or "Left out: no run has a metrics.csv.",
        "### Firing rates",
        {"rates": (RATES, figures.firing_rates_of_layers(rates, study.recipe.methods))}
        if rates
        else _without("the number of neurons per layer", "result.json"),
        tables.rates_table(study),
        "### Relation and scale over training",
        MEASURED if relations else _without("R_hat", "relations.csv"),
        figures.relations_over_training(study),
        relations,
        f"### Relation of {escape(shown)}" if shown else "### Relation as a picture",
        figures.relation_picture(study, shown) or _without("R_hat of single synapses", "probe.npz"),
        "### Spikes and traces",
        figures.spike_raster(study, synapse or _middle(study.synapses("pre_spikes")))
        or _without("spikes", "probe.npz"),
        "### To repeat it",
        tables.methods_table(study),
        *_listing("Repeats these runs", f"tracegrad study {shlex.quote(recipe_file.name)}"),
        *_listing("Commands as they were given", _commands(study)),
        tables.environment_table(study),
        *_listing(f"The recipe, {recipe_file.name}", to_yaml(study.recipe)),
    ]
    name = "".join(sign if sign.isalnum() else "-" for sign in study.name)
    return [{f"{name}-{key}": each[key] for key in each} if isinstance(each, dict) else each for each in blocks]


def _results(study: RunsOfStudy) -> list[Block]:
    differences, claims = comparing.differences_table(study), comparing.claims_table(study)
    diverged = "; ".join(str(run.diverged) for run in study.diverged)
    unfinished = ", ".join(f"{run.label} ({epochs} epochs)" for run, epochs in study.unfinished)
    return [
        tables.study_table(study),
        REPORTED if reported_for(study.recipe) else "",
        differences,
        comparing.images_table(study),
        INTERVALS if differences else "",
        claims,
        CLAIMS if claims else "",
        diverged and escape(f"Diverged, and counted as failures: {diverged}."),
        unfinished and escape(f"Not finished, and not counted: {unfinished}."),
    ]


def _middle(synapses: Sequence[str]) -> str:
    return synapses[len(synapses) // 2] if synapses else ""


def _without(what: str, file: str) -> str:
    return f"Left out: no run of this study recorded {what} ({file})."


def _commands(study: RunsOfStudy) -> str:
    return "\n".join(dict.fromkeys(run.result["command"] for run in study.runs.values() if "command" in run.result))


def _listing(title: str, text: str) -> tuple[str, ...]:
    """Lines to copy, whatever is in them."""
    fence = "`" * (3 + max(map(len, re.findall("`{3,}", text)), default=0))
    return (escape(f"{title}:"), f"{fence}\n{text.rstrip()}\n{fence}") if text else ()
