"""Stage C: the paper's rows in small. Run it with `python studies/claim/paper_rows.py STAGE_B STAGE_C`.

STAGE_B holds the rows with soft reset and STAGE_C those with hard reset, over whose seeds the table is. STAGE_C gets
paper-rows.md, and rows.csv (in the form of the paper's Table 1, its ResNet20 below), differences.csv and setting.csv.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tracegrad.lab.files import write
from tracegrad.lab.recipe.fields import CHANGEABLE
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.comparing import difference
from tracegrad.lab.report.paper import CITATION, reported_results
from tracegrad.lab.report.quantities import ACCURACY, SPIKES
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.report.tables import paper_table, recipes_table, reported_row
from tracegrad.lab.studies.collect import RunsOfStudy, collect

SCALED = "gradient-scale"
BASELINES = {"soft": "baseline-5e-4", "hard": "baseline"}
"""Of each reset, the baseline with the learning rate and weight decay of gradient scaling."""
REPORTED = {
    (row.reset, row.method): row for row in reported_results() if (row.table, row.architecture) == (1, "resnet20")
}


def only(study: RunsOfStudy, reset: str, seeds: Sequence[int]) -> RunsOfStudy:
    """The paper's two methods of a study, with these seeds.

    Raises:
        ValueError: something in their settings differs.
    """
    methods = {name: study.recipe.methods[name] for name in (BASELINES[reset], SCALED)}
    base, scaled = (study.recipe.setting(name) for name in methods)
    if any(getattr(base, field) != getattr(scaled, field) for field in CHANGEABLE):
        raise ValueError(f"{' and '.join(methods)} of {study.name} must be trained with the same settings")
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
    for reset, study in zip(BASELINES, studies, strict=True):
        pairs = study.against_baseline()[SCALED]
        found = [difference(pairs, quantity) for quantity in (ACCURACY, SPIKES)]
        ours = (number(value, sign=True) for each in found for value in (each.mean, each.low, each.high))
        scaled, base = REPORTED[reset, SCALED], REPORTED[reset, "baseline"]
        theirs = scaled.accuracy_mean - base.accuracy_mean, scaled.spikes_mean - base.spikes_mean
        rows.append((reset, *ours, *(number(value, sign=True) for value in theirs)))
    columns = [f"{name}: {each}" for name in ("Points", "K spikes") for each in ("mean", "low", "high")]
    header = ("Reset", *columns, f"Points ({CITATION})", f"K spikes ({CITATION})")
    return Table(f"{SCALED} - baseline, 95 % intervals over seeds", header, tuple(rows))


def setting_table(study: RunsOfStudy) -> Table:
    """The fields in which the paper's recipe has something else."""
    ours = study.recipe.setting(SCALED)
    ours = replace(ours, data=replace(ours.data, root=None))
    paper = load_recipe("park2023/cifar10-resnet20-soft")
    table = recipes_table([RunsOfStudy(name, recipe, {}, ()) for name, recipe in (("here", ours), (CITATION, paper))])
    return replace(table, title="What else differs from the paper")


def main(stage_b: Path, stage_c: Path) -> None:
    """Tables of what is complete."""
    (soft,), (hard,) = collect([stage_b]), collect([stage_c])
    studies = [only(study, reset, hard.recipe.seeds) for reset, study in zip(BASELINES, (soft, hard), strict=True)]
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
