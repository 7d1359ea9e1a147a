"""Stage C: the paper's rows in small. Run it with `python studies/claim/paper_rows.py STAGE_B STAGE_C`.

STAGE_B holds the rows with soft reset and STAGE_C those with hard reset, over whose seeds the table is. STAGE_C gets
paper-rows.md, and rows.csv (in the form of the paper's Table 1, its ResNet20 below), differences.csv and setting.csv.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import Claims
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.comparing import difference
from tracegrad.lab.report.paper import CITATION, reported_results
from tracegrad.lab.report.quantities import ACCURACY, SPIKES
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.tables import paper_table, recipes_table, reported_row
from tracegrad.lab.studies.collect import RunsOfStudy, collect

BASELINE, SCALED = "baseline", "gradient-scale"
RESETS = ("soft", "hard")
REPORTED = {
    (row.reset, row.method): row for row in reported_results() if (row.table, row.architecture) == (1, "resnet20")
}


def only(study: RunsOfStudy, seeds: Sequence[int]) -> RunsOfStudy:
    """The paper's two methods of a study, with these seeds."""
    methods = {name: study.recipe.methods[name] for name in (BASELINE, SCALED)}
    claims = study.recipe.claims.on(methods)
    return replace(study, recipe=replace(study.recipe, methods=methods, claims=claims, seeds=list(seeds)))


def rows_table(studies: Sequence[RunsOfStudy]) -> Table:
    """Accuracy and spikes, ours and then the paper's."""
    ours = [paper_table(study) for study in studies]
    rows = [row for table in ours for row in table.rows]
    rows += [reported_row(row, f"{CITATION}, {row.architecture}") for row in REPORTED.values()]
    title = f"Test accuracy and spikes per image on CIFAR-10, {len(studies[0].recipe.seeds)} seeds"
    return Table(title, ours[0].header, tuple(rows))


def differences_table(studies: Sequence[RunsOfStudy]) -> Table:
    """Scaled minus unscaled, paired by seed; the paper's of its means."""
    rows: list[tuple[str, ...]] = []
    for reset, study in zip(RESETS, studies, strict=True):
        pairs = study.pairs(SCALED, BASELINE)
        found = [difference(pairs, quantity) for quantity in (ACCURACY, SPIKES)]
        ours = (number(value, sign=True) for each in found for value in (each.mean, each.low, each.high))
        scaled, base = REPORTED[reset, SCALED], REPORTED[reset, BASELINE]
        theirs = scaled.accuracy_mean - base.accuracy_mean, scaled.spikes_mean - base.spikes_mean
        rows.append((reset, *ours, *(number(value, sign=True) for value in theirs)))
    columns = [f"{name}: {each}" for name in ("Points", "K spikes") for each in ("mean", "low", "high")]
    header = ("Reset", *columns, f"Points ({CITATION})", f"K spikes ({CITATION})")
    return Table(f"{SCALED} - {BASELINE}, 95 % intervals over seeds", header, tuple(rows))


def setting_table(study: RunsOfStudy) -> Table:
    """The fields in which the paper's recipe, or one of the two methods, has something else."""
    recipes = {f"{method}, here": study.recipe.setting(method) for method in (BASELINE, SCALED)}
    here = {name: replace(each, data=replace(each.data, root=None)) for name, each in recipes.items()}
    every = {**here, CITATION: load_recipe("park2023/cifar10-resnet20-soft")}
    table = recipes_table([RunsOfStudy(name, replace(each, claims=Claims()), {}, ()) for name, each in every.items()])
    return replace(table, title="What else differs from the paper")


def main(stage_b: Path, stage_c: Path) -> None:
    """Tables of what is complete."""
    (soft,), (hard,) = collect([stage_b]), collect([stage_c])
    studies = [only(soft, hard.recipe.seeds), only(hard, hard.recipe.seeds)]
    tables = {
        "rows": rows_table(studies),
        "differences": differences_table(studies),
        "setting": setting_table(studies[0]),
    }
    for name, table in tables.items():
        write(stage_c / f"{name}.csv", table.csv())
    text = "\n".join(table.markdown() for table in tables.values())
    write(stage_c / "paper-rows.md", text)
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
