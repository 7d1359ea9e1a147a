"""Stage A: which arm goes on. Run it with `python studies/claim/rank_arms.py FOLDER`.

FOLDER holds a study for each data set, fashion-mnist and moving; it gets ranks.csv and ranks.md.

The rule, written before any arm was trained: on each data set, an arm's score is its mean paired difference to the
baseline in validation accuracy, over the spread of the placebo's differences there, or over one validation image if
that is more. The mean over data sets ranks. An arm that diverged more often than the baseline on a data set is behind
those that did not; of equal scores, the arm with fewer spikes is before.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from tracegrad.lab.files import write
from tracegrad.lab.report.comparing import difference
from tracegrad.lab.report.quantities import ACCURACY, SPIKES, Quantity
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import RunsOfStudy, collect
from tracegrad.lab.studies.statistics import Difference

PLACEBO = "placebo"
VALIDATION = Quantity("Validation accuracy (%)", "validation_accuracy", 100)
VALIDATION_IMAGES = {"fashion-mnist": 6000, "moving": 1800}


class Measured(NamedTuple):
    """An arm on a data set: paired differences to the baseline in points and K spikes, score, and more failures."""

    validation: Difference
    test: Difference
    spikes: Difference
    score: float
    failed_more: bool


def measure(study: RunsOfStudy, validation_images: int) -> dict[str, Measured]:
    """What the arms of a study did, the placebo among them."""
    baseline = study.recipe.baseline or ""
    pairs = study.against_baseline()
    noise = max(difference(pairs[PLACEBO], VALIDATION).deviation, 100 / validation_images)
    found: dict[str, Measured] = {}
    for method, runs in pairs.items():
        validation = difference(runs, VALIDATION)
        more = len(study.failures(method)) > len(study.failures(baseline))
        others = difference(runs, ACCURACY), difference(runs, SPIKES)
        found[method] = Measured(validation, *others, validation.mean / noise, more)
    return found


def rank(measured: Sequence[dict[str, Measured]]) -> list[tuple[str, float]]:
    """The arms, the best one first, with the means of their scores."""

    def place(arm: str) -> tuple[bool, float, float]:
        failed = any(each[arm].failed_more for each in measured)
        return failed, -score[arm], fmean(each[arm].spikes.mean for each in measured)

    arms = [arm for arm in measured[0] if arm != PLACEBO and all(arm in each for each in measured)]
    score = {arm: fmean(each[arm].score for each in measured) for arm in arms}
    return [(arm, score[arm]) for arm in sorted(arms, key=place)]


def table(names: Sequence[str], measured: Sequence[dict[str, Measured]]) -> Table:
    """The arms by rank, then the placebo."""
    columns = ("seeds", "validation (points)", "± of a pair", "score", "test (points)", "spikes (K)")
    header = ("Arm", "Score", *(f"{name}: {column}" for name in names for column in columns))
    rows: list[tuple[str, ...]] = []
    for arm, score in [*rank(measured), (PLACEBO, math.nan)]:
        cells: list[Any] = [arm, number(score, sign=True)]
        for one in (each[arm] for each in measured):
            cells += [one.validation.pairs, number(one.validation.mean, sign=True), number(one.validation.deviation)]
            cells += [number(value, sign=True) for value in (one.score, one.test.mean, one.spikes.mean)]
        rows.append(tuple(map(str, cells)))
    return Table("Arms by their difference to the baseline, means over seeds", header, tuple(rows))


def main(folder: Path) -> None:
    """Ranks what is complete."""
    measured: list[dict[str, Measured]] = []
    for name in VALIDATION_IMAGES:
        (study,) = collect([folder / name])
        measured.append(measure(study, VALIDATION_IMAGES[name]))
    ranks = table(tuple(VALIDATION_IMAGES), measured)
    write(folder / "ranks.csv", ranks.csv())
    write(folder / "ranks.md", ranks.markdown())
    print(ranks.markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
