"""Writes the files on runs and studies: tables, figures, a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.report.comparing import claims_table, differences_table
from tracegrad.lab.report.figures import study_figure
from tracegrad.lab.report.page import Block, to_html, to_markdown
from tracegrad.lab.report.sections import sections
from tracegrad.lab.report.style import STYLE, to_png, to_svg
from tracegrad.lab.report.table import Table, escape, paragraph
from tracegrad.lab.report.tables import rates_table, recipes_table, relations_table, study_table
from tracegrad.lab.report.words import summarize_in_words
from tracegrad.lab.runs.run import plan, to_yaml
from tracegrad.lab.studies.collect import RunsOfStudy, collect

OF_STUDY: dict[str, Callable[[RunsOfStudy], Table]] = {
    "results": study_table,
    "differences": differences_table,
    "claims": claims_table,
}
OF_REPORT = {**OF_STUDY, "rates": rates_table, "relations": relations_table}


def write_study(recipe: Recipe, folder: Path) -> dict[str, Table]:
    """Writes the tables and figures of a finished study: table.md, table.csv, differences.csv, figure.png, figure.svg.

    Args:
        recipe: the study.
        folder: of the study, with all of its runs over.

    Returns:
        The tables that there are: "results" of each method, "differences" to the baseline and the recipe's "claims".

    Raises:
        ValueError: a run is damaged.
        OSError: the folder cannot be written to.
    """
    (collected,) = collect([run.folder for run in plan(recipe, folder)])
    methods = {name: method for name, method in recipe.methods.items() if collected.of(name)}
    runs = replace(collected, recipe=replace(recipe, methods=methods, claims=recipe.claims.on(methods)))
    tables = {name: table for name, table_of in OF_STUDY.items() if (table := table_of(runs))}
    write(folder / "study.yaml", to_yaml(recipe))
    write(folder / "table.md", "\n".join(table.markdown() for table in tables.values()))
    write(folder / "table.csv", tables["results"].csv())
    if "differences" in tables:
        write(folder / "differences.csv", tables["differences"].csv())
    with mpl.rc_context(STYLE):
        figure = study_figure(runs)
        write(folder / "figure.png", to_png(figure))
        write(folder / "figure.svg", to_svg(figure))
    return tables


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
    known = dict.fromkeys(name for study in studies for name in study.synapses("pre_spikes"))
    if synapse is not None and synapse not in known:
        raise ValueError(f"unknown synapse {synapse!r}; the runs recorded {', '.join(known) or 'none'}")
    single = len(studies) == 1
    title = studies[0].name if single else f"{len(studies)} studies"
    blocks: list[Block] = [f"# {escape(title)}", paragraph(studies[0].recipe.description) if single else ""]
    for study in studies:
        told = summarize_in_words(study)
        blocks += [f"> {paragraph(sentence if single else f'{study.name}: {sentence}')}" for sentence in told]
    if differing := recipes_table(studies):
        blocks += ["### What sets the studies apart", differing]
    for study in studies:
        recipe_file = output.with_name(f"{output.stem}-{study.name}.yaml")
        write(recipe_file, to_yaml(study.recipe))
        for kind, table_of in OF_REPORT.items():
            if table := table_of(study):
                write(output.with_name(f"{output.stem}-{study.name}-{kind}.csv"), table.csv())
        blocks += [] if single else [f"## {escape(study.name)}", paragraph(study.recipe.description)]
        with mpl.rc_context(STYLE):
            blocks += sections(study, synapse, recipe_file)
    write(output.with_suffix(".md"), to_markdown(blocks))
    write(output, to_html(title, blocks))
    return output
