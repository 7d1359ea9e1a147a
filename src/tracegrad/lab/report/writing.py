"""Writes a report of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.report.claims import claims_table
from tracegrad.lab.report.comparison import study_figure, study_table
from tracegrad.lab.report.content import Chapter, Section
from tracegrad.lab.report.page import to_html, to_markdown
from tracegrad.lab.report.sections import StudyWriter
from tracegrad.lab.report.table import Table
from tracegrad.lab.report.tables import (
    differences_table,
    rates_table,
    recipes_table,
    relations_table,
)
from tracegrad.lab.runs.run import plan, to_yaml
from tracegrad.lab.studies.collect import RunsOfStudy, collect

TABLES: dict[str, Callable[[RunsOfStudy], Table | None]] = {
    "results": study_table,
    "differences": differences_table,
    "claims": claims_table,
    "rates": rates_table,
    "relations": relations_table,
}


@dataclass(frozen=True)
class Study:
    """A finished study.

    Args:
        folder: of the study, with its tables and figures.
        methods: table of accuracy and spikes of each method.
        differences: table of the paired differences; None without a baseline and another method.
        claims: table of the recipe's claims; None without any.
    """

    folder: Path
    methods: Table
    differences: Table | None
    claims: Table | None

    @property
    def tables(self) -> list[Table]:
        """Those that there are."""
        return [table for table in (self.methods, self.differences, self.claims) if table]


def write_study(recipe: Recipe, folder: Path) -> Study:
    """Writes the tables and figures of a finished study: table.md, table.csv, differences.csv, figure.png, figure.svg.

    Args:
        recipe: the study.
        folder: of the study, with all of its runs over.

    Raises:
        ValueError: a run is damaged.
        OSError: the folder cannot be written to.
    """
    (collected,) = collect([run.folder for run in plan(recipe, folder)])
    methods = {name: method for name, method in recipe.methods.items() if collected.of(name)}
    runs = replace(collected, recipe=replace(recipe, methods=methods, claims=recipe.claims.on(methods)))
    study = Study(folder, study_table(runs), differences_table(runs), claims_table(runs))
    write(folder / "study.yaml", to_yaml(recipe))
    write(folder / "table.md", "\n".join(table.markdown() for table in study.tables))
    write(folder / "table.csv", study.methods.csv())
    if study.differences:
        write(folder / "differences.csv", study.differences.csv())
    for suffix, image in study_figure(runs).items():
        write(folder / f"figure.{suffix}", image)
    return study


def write_report(folders: Sequence[Path], output: Path, synapse: str | None = None) -> Path:
    """Writes one self-contained HTML page on runs, and its tables as Markdown and CSV beside it.

    Beside REPORT.html are REPORT.md, REPORT-STUDY-TABLE.csv for every table, and REPORT-STUDY.yaml, the recipe that
    repeats the runs.

    Args:
        folders: of runs or studies; runs that differ in method and seed alone are compared with each other.
        output: of the page, a path that ends in .html.
        synapse: the one to show in pictures, by module name; by default one in the middle of the network.

    Returns:
        `output`.

    Raises:
        ValueError: no complete run, a damaged file, an unknown synapse, or another kind of `output`.
        OSError: the files cannot be written.
    """
    if output.suffix != ".html":
        raise ValueError(f"the report must be a file that ends in .html, not {output}")
    studies = collect(folders)
    _check_synapse(studies, synapse)
    chapters: list[Chapter] = []
    for study in studies:
        recipe_file = output.with_name(f"{output.stem}-{study.name}.yaml")
        write(recipe_file, to_yaml(study.recipe))
        chapters.append(StudyWriter(study, synapse, recipe_file).chapter())
        for kind, table_of in TABLES.items():
            if table := table_of(study):
                write(output.with_name(f"{output.stem}-{study.name}-{kind}.csv"), table.csv())
    differing = recipes_table(studies)
    common = [Section("What sets the studies apart", (differing,))] if differing else []
    title = studies[0].name if len(studies) == 1 else f"{len(studies)} studies"
    write(output.with_suffix(".md"), to_markdown(title, chapters, common))
    write(output, to_html(title, chapters, common))
    return output


def _check_synapse(studies: Sequence[RunsOfStudy], synapse: str | None) -> None:
    known = {
        key.removesuffix("/pre_spikes"): None
        for study in studies
        for run in study.runs.values()
        for key in run.probe
        if key.endswith("/pre_spikes")
    }
    if synapse is not None and synapse not in known:
        raise ValueError(f"unknown synapse {synapse!r}; the runs recorded {', '.join(known) or 'none'}")
