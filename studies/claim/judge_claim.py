"""Stage B: what is claimed. Run it with `python studies/claim/judge_claim.py STAGE_B PENALTY`.

STAGE_B and PENALTY are the folders of the two studies; STAGE_B gets claim.md, and accuracy.csv, spikes.csv and nll.csv.
The rules are those of README.md, written before the first run. The arm is the last method under `claims` in
stage-b.yaml; methods that are not named there to be better than something are its controls.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from tracegrad.lab.files import write
from tracegrad.lab.report.comparing import LEVEL, Pairs, difference, difference_over_images
from tracegrad.lab.report.quantities import ACCURACY, SPIKES, Quantity
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import FinishedRun, RunsOfStudy, collect
from tracegrad.lab.studies.statistics import Difference, equivalence, holm, non_inferiority

NLL = Quantity("Test NLL", "test_nll")


class Compared(NamedTuple):
    """A method and what it is compared with.

    Attributes:
        name: of both.
        pairs: their runs with the same seeds.
        accuracy: in points; its p is corrected where several hypotheses are (H1 and H2).
        images: the interval of the crossed bootstrap, in points.
        worse: p of being less than the margin worse.
        differs: p of differing by less than the margin.
        failed_more: whether the method diverged more often.
    """

    name: str
    pairs: Pairs
    accuracy: Difference
    images: tuple[float, float]
    worse: float
    differs: float
    failed_more: bool

    @property
    def gains(self) -> bool:
        """Whether the difference is seen, and above 0."""
        return not self.failed_more and self.accuracy.p < LEVEL and self.accuracy.mean > 0


def compare(study: RunsOfStudy, method: str, other: str) -> Compared:
    """A method against another one of the study."""
    pairs = study.pairs(method, other)
    values, others = ([ACCURACY(run) for run in runs] for runs in zip(*pairs, strict=True))
    _, low, high = difference_over_images(pairs)
    margin = study.recipe.claims.margin or math.nan
    return Compared(
        f"{method} - {other}",
        pairs,
        difference(pairs, ACCURACY),
        (low, high),
        non_inferiority(values, others, margin),
        equivalence(values, others, margin),
        len(study.failures(method)) > len(study.failures(other)),
    )


def hypotheses(study: RunsOfStudy) -> tuple[list[Compared], list[Compared]]:
    """Each claimed method against the baseline, corrected together; then the arm against each of its controls."""
    baseline, claimed = study.recipe.baseline or "", list(study.recipe.claims.better)
    against_baseline = [compare(study, method, baseline) for method in claimed]
    corrected = holm([each.accuracy.p for each in against_baseline])
    pairs = zip(against_baseline, corrected, strict=True)
    first = [each._replace(accuracy=replace(each.accuracy, p=p)) for each, p in pairs]
    controls = [method for method in study.recipe.methods if method not in (baseline, *claimed)]
    return first, [compare(study, claimed[-1], control) for control in controls]


def spikes_on_curve(points: Sequence[tuple[float, float]], accuracy: float) -> float:
    """The spikes with which a curve of (accuracy, spikes) is as accurate; infinite where it never is.

    It is linear between its points, without those that another one beats in both.
    """
    kept = sorted(each for each in points if not any(a >= each[0] and s < each[1] for a, s in points))
    return float(np.interp(accuracy, *zip(*kept, strict=True), right=math.inf))


def means(runs: Sequence[FinishedRun], seeds: Sequence[int]) -> tuple[float, float]:
    """Accuracy and spikes over the runs with these seeds."""
    chosen = [run for run in runs if run.run.seed in seeds]
    return fmean(map(ACCURACY, chosen)), fmean(map(SPIKES, chosen))


def accuracy_table(compared: Sequence[Compared], margin: float) -> Table:
    """Differences in accuracy with both intervals."""
    header = ("Difference", "Seeds", "Points", "95 % (t)", "p", "p (sign flips)", "95 % (seeds x images)")
    header = (*header, f"p: less than {margin:g} apart", "Could be seen (points)")
    rows: list[tuple[str, ...]] = []
    for each in compared:
        found = each.accuracy
        cells = (str(found.pairs), number(found.mean, sign=True), _interval(found.low, found.high))
        ps = number(found.p, 3), number(found.p_flips, 3)
        seen = number(each.differs, 3), number(found.smallest_seen)
        rows.append((each.name, *cells, *ps, _interval(*each.images), *seen))
    return Table("Test accuracy; p of the hypotheses against the baseline with Holm's correction", header, tuple(rows))


def spikes_table(compared: Sequence[Compared], study: RunsOfStudy, penalty: RunsOfStudy) -> Table:
    """Spikes, and what the baseline with a penalty on its firing rate needs to be as accurate, over shared seeds."""
    runs = [study.of(study.recipe.baseline or ""), *map(penalty.of, penalty.recipe.methods)]
    points = [means(each, penalty.recipe.seeds) for each in runs]
    header = (
        "Difference",
        "K spikes",
        "95 % (t)",
        "p: not worse",
        "K spikes, its own",
        "On the curve",
        "Fewer is claimed",
    )
    rows: list[tuple[str, ...]] = []
    for each in compared:
        found = difference(each.pairs, SPIKES)
        accuracy, own = means([run for run, _ in each.pairs], penalty.recipe.seeds)
        curve = spikes_on_curve(points, accuracy)
        fewer = found.high < 0 and each.worse < LEVEL and not each.failed_more and own < curve
        cells = number(found.mean, sign=True), _interval(found.low, found.high), number(each.worse, 3)
        shown = "none is as accurate" if math.isinf(curve) else number(curve)
        rows.append((each.name, *cells, number(own), shown, "yes" if fewer else "no"))
    return Table("Spikes per test image", header, tuple(rows))


def nll_table(compared: Sequence[Compared]) -> Table:
    """Differences in test NLL."""
    found = [difference(each.pairs, NLL) for each in compared]
    rows = [
        (each.name, number(one.mean, 4, sign=True), _interval(one.low, one.high, 4))
        for each, one in zip(compared, found, strict=True)
    ]
    return Table("Test NLL", ("Difference", "NLL", "95 % (t)"), tuple(rows))


def verdicts(study: RunsOfStudy, first: Sequence[Compared], controls: Sequence[Compared]) -> list[str]:
    """What is claimed of each method against the baseline, and of the arm against each control."""
    margin = study.recipe.claims.margin
    said: list[str] = []
    for each in first:
        is_arm = each is first[-1]
        if each.gains and is_arm and all(control.gains for control in controls):
            said.append(f"{each.name}: a gain that its controls do not share.")
        elif each.gains:
            said.append(
                f"{each.name}: a gain, {'which a control shares' if is_arm else 'of which no control was trained'}."
            )
        else:
            said.append(f"{each.name}: no gain is claimed; {_bounded(each, margin)}.")
    said += [f"{each.name}: {'seen' if each.gains else 'not seen'}; {_bounded(each, margin)}." for each in controls]
    return said


def _bounded(each: Compared, margin: float | None) -> str:
    return f"that they differ by less than {margin:g} points is {'' if each.differs < LEVEL else 'not '}shown"


def _interval(low: float, high: float, digits: int = 2) -> str:
    return f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}"


def main(folder: Path, penalties: Path) -> None:
    """Judges what is complete."""
    (study,), (penalty,) = collect([folder]), collect([penalties])
    first, controls = hypotheses(study)
    every = [*first, *controls]
    tables = {
        "accuracy": accuracy_table(every, study.recipe.claims.margin or math.nan),
        "spikes": spikes_table(first, study, penalty),
        "nll": nll_table(every),
    }
    for name, table in tables.items():
        write(folder / f"{name}.csv", table.csv())
    blocks = [table.markdown() for table in tables.values()]
    text = "\n".join(
        ["# What is claimed", "", *blocks, *(f"- {each}" for each in verdicts(study, first, controls)), ""]
    )
    write(folder / "claim.md", text)
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
