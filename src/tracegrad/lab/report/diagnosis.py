"""Diagnoses the networks of complete runs: what each rule would do to their gradients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes

from tracegrad.lab.data import Batches
from tracegrad.lab.files import write
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.style import COLOURS, STYLE, new_figure, to_png
from tracegrad.lab.report.table import Table
from tracegrad.lab.runs.isolation import isolated
from tracegrad.measure.diagnose import diagnose
from tracegrad.measure.diagnosis import CONTROLS, HEADER, DiagnosedRule, Diagnosis, csv_of
from tracegrad.measure.summary import Pair, Spread, Summary, agreement_csv, agreements, summarize, summary_csv
from tracegrad.methods.objectives import OBJECTIVES

CAPTION = (
    "Angles, what of the relation and its change is timing, and how far rules agree. Points are means, lines ranges, "
    "over synapses and runs"
)


def diagnose_runs(
    folders: Sequence[Path], batches: int, batch_size: int, output: Path | None = None
) -> tuple[Table, Path]:
    """Diagnoses complete runs on their training images, without augmentation.

    Args:
        folders: of the runs.
        batches: how many.
        batch_size: images in each.
        output: folder of what is written: diagnosis.md and diagnosis.png, summary.csv and agreement.csv over all runs,
            and diagnosis.csv with every finding. By default the folder `diagnosis` in the run's, or in the innermost
            folder that holds all runs.

    Returns:
        The table over all runs, and the folder of what was written.

    Raises:
        ValueError: no complete run, no network that gradient scaling can be attached to, or no batch of two images.
        OSError: the data are missing, or the folder cannot be written to.
    """
    trained = [TrainedRun.read(folder) for folder in folders]
    found = [_diagnosed(each, batches, batch_size) for each in trained]
    names = [f"{each.run.setting.name}, {each.run.label}" for each in trained]
    output = output or Path(os.path.commonpath([folder.absolute() for folder in folders])) / "diagnosis"
    summaries, agreement = summarize(found), agreements(found)
    table = tabulate(summaries, f"{'; '.join(names)}: batches of {batch_size} images, {batches} for each run")
    write(output / "diagnosis.md", f"{table.markdown()}\n![{CAPTION}](diagnosis.png)\n\n{CAPTION}.\n")
    write(output / "diagnosis.csv", _findings_csv(names, found))
    write(output / "summary.csv", summary_csv(summaries))
    write(output / "agreement.csv", agreement_csv(agreement))
    write(output / "diagnosis.png", draw(summaries, agreement))
    return table, output


def _diagnosed(trained: TrainedRun, batches: int, batch_size: int) -> Diagnosis:
    setting, dataset, seed = trained.run.setting, trained.dataset, trained.run.seed
    with isolated(seed, setting.training.threads):
        images = Batches(dataset.train, batch_size, dataset=dataset, seed=seed, shuffle=True)
        return diagnose(trained.network(), islice(images, batches), loss=OBJECTIVES[setting.objective])


def _findings_csv(names: Sequence[str], found: Sequence[Diagnosis]) -> str:
    """Every finding of every run."""
    rows = [(name, *each.cells()) for name, run in zip(names, found, strict=True) for each in run.findings]
    return csv_of([("run", *HEADER), *rows])


def tabulate(summaries: Sequence[Summary], title: str) -> Table:
    """A row for each rule: means and ranges over synapses and runs. Shares are those of any alpha."""
    alphas = sorted({each.alpha for each in summaries})
    titles = [f"angle at alpha {alpha:g} (degrees)" for alpha in alphas]
    shares = [f"relation_{name}" for name in CONTROLS] + ["change_other_image", "change_counts"]
    titles += ["reliability (r²)", *(f"{name.replace('_', ': ', 1)} (r²)" for name in shares)]
    by_rule: dict[DiagnosedRule, dict[float, Summary]] = {}
    for each in summaries:
        by_rule.setdefault(each.rule, {})[each.alpha] = each
    rows: list[tuple[str, ...]] = []
    for rule, by_alpha in by_rule.items():
        numbers = by_alpha[alphas[0]].numbers
        angles = (by_alpha[alpha].numbers["angle"] for alpha in alphas)
        rows.append((str(rule), *map(_angle, angles), *(_share(numbers[name]) for name in ("reliability", *shares))))
    return Table(title, ("rule", *titles), tuple(rows))


def _angle(spread: Spread) -> str:
    return _cell(spread, lambda value: f"{value:.2g}" if value < 10 else f"{value:.0f}")


def _share(spread: Spread) -> str:
    return _cell(spread, lambda value: f"{value:.3f}")


def _cell(spread: Spread, digits: Callable[[float], str]) -> str:
    mean, low, high = map(digits, spread)
    return "–" if math.isnan(spread.mean) else f"{mean} ({low} to {high})"


@mpl.rc_context(STYLE)
def draw(summaries: Sequence[Summary], agreement: Mapping[Pair, Spread]) -> bytes:
    """A picture, as PNG: of the first time mode and the relation inside the sum, with the smallest alpha."""
    alpha, time = min(each.alpha for each in summaries), summaries[0].rule.time
    shown = [
        each for each in summaries if each.alpha == alpha and (each.rule.time == time or each.rule.apply == "event")
    ]
    figure = new_figure(13, 1.6 + 0.26 * len(shown))
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 2, 3))
    _angles(left, shown)
    _timing(middle, shown)
    _agreement(right, [each.rule for each in shown], agreement)
    left.set_xlabel(f"Angle at alpha {alpha:g} (degrees)")
    return to_png(figure)


def _angles(axes: Axes, shown: Sequence[Summary]) -> None:
    for row, each in enumerate(shown):
        _point(axes, row, each.numbers["angle"], "o", COLOURS[0])
    axes.set(xlim=(0, None), ylim=(len(shown) - 0.5, -0.5))
    axes.set_yticks(range(len(shown)), [str(each.rule) for each in shown])


def _timing(axes: Axes, shown: Sequence[Summary]) -> None:
    """What spike counts leave unexplained."""
    kinds = (("relation", -0.15, "s", COLOURS[0]), ("change", 0.15, "^", COLOURS[1]))
    for row, each in enumerate(shown):
        for kind, shift, marker, colour in kinds:
            timing = Spread(*(100 * (1 - share) for share in each.numbers[f"{kind}_counts"]))
            _point(axes, row + shift, timing, marker, colour, "" if row else kind)
    axes.set(xlabel="Timing (%, not counts)", xlim=(-3, 103), ylim=(len(shown) - 0.5, -0.5), yticklabels=[])
    axes.set_yticks(range(len(shown)), [""] * len(shown))
    axes.legend(loc="lower right", fontsize=8)


def _point(axes: Axes, row: float, spread: Spread, marker: str, colour: str, label: str = "") -> None:
    axes.plot(spread[1:], (row, row), color=colour, linewidth=1)
    axes.plot(spread.mean, row, marker, color=colour, markersize=5, label=label)


def _agreement(axes: Axes, rules: list[DiagnosedRule], agreement: Mapping[Pair, Spread]) -> None:
    r2 = torch.full((len(rules), len(rules)), torch.nan)
    for (a, b), spread in agreement.items():
        if a in rules and b in rules:
            r2[rules.index(a), rules.index(b)] = r2[rules.index(b), rules.index(a)] = spread.mean
    r2.fill_diagonal_(1.0)
    image = axes.imshow(r2.numpy(), vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.grid(visible=False)
    axes.set_yticks(range(len(rules)), [""] * len(rules))
    axes.set_xticks(range(len(rules)), [str(rule) for rule in rules], rotation=90, fontsize=6)
    axes.figure.colorbar(image, ax=axes, label="r² between relations")
