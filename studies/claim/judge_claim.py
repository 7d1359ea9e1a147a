"""Stage B: what is claimed. Run it with `python studies/claim/judge_claim.py STAGE_B [PENALTY]`.

STAGE_B and PENALTY are the folders of the two studies; STAGE_B gets claim.md, effects.png, and accuracy.csv,
spikes.csv and nll.csv. Without the curve of PENALTY, fewer spikes are not claimed. The rules are those of README.md,
written before the first run. The recipe's `claims` name what each method is to be better than: the baseline, and the
controls of an arm.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from effects import effects_figure

from tracegrad.lab.files import write
from tracegrad.lab.report.comparing import LEVEL, Pairs, difference, difference_over_images
from tracegrad.lab.report.quantities import ACCURACY, SPIKES, Quantity
from tracegrad.lab.report.style import to_png
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


class Hypothesis(NamedTuple):
    """A method against the baseline, and against each of its controls."""

    effect: Compared
    controls: list[Compared]


def hypotheses(study: RunsOfStudy) -> list[Hypothesis]:
    """What the recipe claims; the p against the baseline are corrected together."""
    baseline, claimed = study.recipe.baseline or "", study.recipe.claims.better
    effects = [compare(study, method, baseline) for method in claimed]
    corrected = holm([each.accuracy.p for each in effects])
    return [
        Hypothesis(
            effect._replace(accuracy=replace(effect.accuracy, p=p)),
            [compare(study, method, other) for other in others if other != baseline],
        )
        for (method, others), effect, p in zip(claimed.items(), effects, corrected, strict=True)
    ]


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


def spikes_table(compared: Sequence[Compared], study: RunsOfStudy, penalty: RunsOfStudy | None) -> Table:
    """Spikes, and what the baseline with a penalty on its firing rate needs to be as accurate, over shared seeds."""
    seeds, points = study.recipe.seeds, []
    if penalty is not None:
        seeds = penalty.recipe.seeds
        runs = [study.of(study.recipe.baseline or ""), *map(penalty.of, penalty.recipe.methods)]
        points = [means(each, seeds) for each in runs]
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
        accuracy, own = means([run for run, _ in each.pairs], seeds)
        curve = spikes_on_curve(points, accuracy) if points else math.nan
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


def verdicts(found: Sequence[Hypothesis], margin: float) -> list[str]:
    """What is claimed of each method against the baseline, and what is seen of it against each control."""
    said: list[str] = []
    for effect, controls in found:
        if not effect.gains:
            said.append(f"{effect.name}: no gain is claimed; {_bounded(effect, margin)}.")
        elif not controls:
            said.append(f"{effect.name}: a gain, of which no control was trained.")
        elif all(control.gains for control in controls):
            said.append(f"{effect.name}: a gain that its controls do not share.")
        else:
            said.append(f"{effect.name}: a gain, which a control shares.")
        said += [f"{each.name}: {'seen' if each.gains else 'not seen'}; {_bounded(each, margin)}." for each in controls]
    return said


def _bounded(each: Compared, margin: float) -> str:
    return f"that they differ by less than {margin:g} points is {'' if each.differs < LEVEL else 'not '}shown"


def _interval(low: float, high: float, digits: int = 2) -> str:
    return f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}"


def main(folder: Path, penalties: Path | None = None) -> None:
    """Judges what is complete."""
    (study,) = collect([folder])
    (penalty,) = (None,) if penalties is None else collect([penalties])
    found, margin = hypotheses(study), study.recipe.claims.margin or math.nan
    effects = [each.effect for each in found]
    every = [*effects, *(control for each in found for control in each.controls)]
    tables = {
        "accuracy": accuracy_table(every, margin),
        "spikes": spikes_table(effects, study, penalty),
        "nll": nll_table(every),
    }
    for name, table in tables.items():
        write(folder / f"{name}.csv", table.csv())
    rows = [(each.name, each.pairs) for one in found for each in (one.effect, *one.controls)]
    title = f"{study.recipe.description}, {max(len(pairs) for _, pairs in rows)} seeds"
    write(folder / "effects.png", to_png(effects_figure(title, rows, margin)))
    blocks = [table.markdown() for table in tables.values()]
    text = "\n".join(["# What is claimed", "", *blocks, *(f"- {each}" for each in verdicts(found, margin)), ""])
    write(folder / "claim.md", text)
    print(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
