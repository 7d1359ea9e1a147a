"""Writes the files on runs and studies: tables, figures, a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.report.comparing import claims_table, differences_table
from tracegrad.lab.report.figures import study_figure
from tracegrad.lab.report.page import to_html
from tracegrad.lab.report.sections import StudyWriter
from tracegrad.lab.report.style import STYLE, to_png, to_svg
from tracegrad.lab.report.table import Table, escape, paragraph
from tracegrad.lab.report.tables import rates_table, recipes_table, relations_table, study_table
from tracegrad.lab.report.words import summarize_in_words
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
    with mpl.rc_context(STYLE):
        figure = study_figure(runs)
        write(folder / "figure.png", to_png(figure))
        write(folder / "figure.svg", to_svg(figure))
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
    single = len(studies) == 1
    title = studies[0].name if single else f"{len(studies)} studies"
    blocks = [f"# {escape(title)}", *([paragraph(studies[0].recipe.description)] if single else [])]
    blocks += [
        f"> {paragraph(sentence if single else f'{study.name}: {sentence}')}"
        for study in studies
        for sentence in summarize_in_words(study)
    ]
    if differing := recipes_table(studies):
        blocks += ["### What sets the studies apart", differing.markdown()]
    figures: dict[str, str] = {}
    for study in studies:
        recipe_file = output.with_name(f"{output.stem}-{study.name}.yaml")
        write(recipe_file, to_yaml(study.recipe))
        for kind, table_of in TABLES.items():
            if table := table_of(study):
                write(output.with_name(f"{output.stem}-{study.name}-{kind}.csv"), table.csv())
        writer = StudyWriter(study, synapse, recipe_file)
        blocks += [] if single else [f"## {escape(study.name)}", paragraph(study.recipe.description)]
        blocks += writer.blocks()
        figures |= writer.figures
    text = [block.rstrip("\n") for block in blocks if block]
    write(output.with_suffix(".md"), "\n\n".join(block for block in text if not block.startswith("![")) + "\n")
    write(output, to_html(title, "\n\n".join(text), figures))
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
