"""Tuning: which learning rate and weight decay each method gets. Run `python studies/claim/choose_settings.py FOLDER`.

FOLDER holds a study for each setting; it gets settings.csv and settings.md. The rule, written before the first run: the
highest mean validation accuracy after the last epoch; of settings within 0.1 points of it, the one nearest to learning
rate 0.1, then to weight decay 1e-4. Test accuracy is not read.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tracegrad.lab.files import write
from tracegrad.lab.report.table import Table, number
from tracegrad.lab.studies.collect import RunsOfStudy, collect

CLOSE = 0.1  # points
Setting = tuple[float, float]
"""Learning rate and weight decay."""


def settings(studies: Sequence[RunsOfStudy]) -> dict[str, dict[Setting, float]]:
    """Mean validation accuracy (%) by method and setting; of settings that all diverged, none."""
    found: dict[str, dict[Setting, float]] = {}
    for study in studies:
        training = study.recipe.training
        for method in study.recipe.methods:
            accuracies = [100 * run.result["validation_accuracy"] for run in study.of(method)]
            accuracies += [0.0] * len(study.failures(method))  # a failure is not better for being left out
            found.setdefault(method, {})[training.learning_rate, training.weight_decay] = fmean(accuracies)
    return found


def choose(accuracies: dict[Setting, float]) -> Setting:
    """The setting that a method gets."""
    best = max(accuracies.values())
    close = [setting for setting, accuracy in accuracies.items() if accuracy >= best - CLOSE]
    return min(close, key=lambda each: (abs(math.log(each[0] / 0.1)), abs(math.log(each[1] / 1e-4))))


def table(found: dict[str, dict[Setting, float]]) -> Table:
    """Methods by settings; the chosen one is named."""
    every = sorted({setting for of_method in found.values() for setting in of_method})
    rows: list[tuple[str, ...]] = []
    for method, accuracies in found.items():
        cells = (number(accuracies.get(setting, math.nan)) for setting in every)
        rows.append((method, *cells, "{:g}, {:g}".format(*choose(accuracies))))
    header = ("Method", *(f"{rate:g}, {decay:g}" for rate, decay in every), "Chosen")
    return Table("Validation accuracy (%) by learning rate and weight decay, mean over seeds", header, tuple(rows))


def main(folder: Path) -> None:
    """Chooses from what is complete."""
    found = table(settings([study for each in sorted(folder.glob("rate-*")) for study in collect([each])]))
    write(folder / "settings.csv", found.csv())
    write(folder / "settings.md", found.markdown())
    print(found.markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
