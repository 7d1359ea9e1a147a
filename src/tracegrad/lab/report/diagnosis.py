"""Diagnoses the network of a complete run: what each rule would do to its gradients."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracegrad.lab.data import Batches
from tracegrad.lab.files import write
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.style import COLOURS, STYLE, to_png
from tracegrad.lab.report.table import Table
from tracegrad.lab.runs.isolation import isolated
from tracegrad.measure.diagnose import diagnose
from tracegrad.measure.diagnosis import DiagnosedRule, Diagnosis, Finding
from tracegrad.methods.objectives import OBJECTIVES


def diagnose_run(folder: Path, batches: int, batch_size: int) -> Table:
    """Diagnoses a complete run on its training images, without augmentation.

    Writes diagnosis.md, diagnosis.csv, agreement.csv and diagnosis.png to its folder `diagnosis`.

    Args:
        folder: of the run.
        batches: how many.
        batch_size: images in each.

    Raises:
        ValueError: no complete run, no network that gradient scaling can be attached to, or no batch of two images.
        OSError: the data are missing, or the folder cannot be written to.
    """
    trained = TrainedRun.read(folder)
    setting, dataset = trained.run.setting, trained.dataset
    loss = OBJECTIVES[setting.objective]
    with isolated(trained.run.seed, setting.training.threads):
        images = Batches(dataset.train, batch_size, dataset=dataset, seed=trained.run.seed, shuffle=True)
        found = diagnose(trained.network(), islice(images, batches), loss=loss)
    name = f"{setting.name}, {trained.run.label}"
    title = f"{name}: what rules do to the gradient, on {batches} batches of {batch_size} images"
    titles, rows = found.table()
    table, output = Table(title, titles, tuple(rows)), folder / "diagnosis"
    sentences = "\n".join(f"- {each}" for each in found.sentences())
    caption = "Angles, what of the relation and its change is timing, and how far rules agree"
    text = f"{table.markdown()}\n{sentences}\n\n![{caption}](diagnosis.png)\n\n{caption}\n"
    write(output / "diagnosis.md", text)
    write(output / "diagnosis.csv", found.csv())
    write(output / "agreement.csv", found.agreement_csv())
    write(output / "diagnosis.png", draw(found))
    return table


def draw(found: Diagnosis) -> bytes:
    """A picture, as PNG: of the time mode per_step and the relation inside the sum, with the smallest alpha."""
    shown = [
        each for each in found.overall if each.rule.time == found.overall[0].rule.time or each.rule.apply == "event"
    ]
    alpha = min(each.alpha for each in shown)
    shown = [each for each in shown if each.alpha == alpha]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 1.6 + 0.26 * len(shown)), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(2, 2, 3))
        _angles(left, shown)
        _timing(middle, shown)
        _agreement(right, [each.rule for each in shown], found)
        left.set_xlabel(f"Angle at alpha {alpha:g} (degrees)")
        return to_png(figure)


def _angles(axes: Axes, shown: list[Finding]) -> None:
    for row, finding in enumerate(shown):
        axes.plot(finding.angle_range, (row, row), color=COLOURS[0], linewidth=1)
        axes.plot(finding.angle, row, "o", color=COLOURS[0], markersize=5)
    axes.set(xlim=(0, None), ylim=(len(shown) - 0.5, -0.5))
    axes.set_yticks(range(len(shown)), [str(each.rule) for each in shown])


def _timing(axes: Axes, shown: list[Finding]) -> None:
    """What spike counts leave unexplained."""
    for row, finding in enumerate(shown):
        shares = finding.of_relation["counts"], finding.of_change["counts"]
        axes.plot(100 * (1 - shares[0]), row, "s", color=COLOURS[0], markersize=5, label="" if row else "relation")
        axes.plot(100 * (1 - shares[1]), row, "^", color=COLOURS[1], markersize=5, label="" if row else "change")
    axes.set(xlabel="Timing (%, not counts)", xlim=(-3, 103), ylim=(len(shown) - 0.5, -0.5), yticklabels=[])
    axes.set_yticks(range(len(shown)), [""] * len(shown))
    axes.legend(loc="lower right", fontsize=8)


def _agreement(axes: Axes, rules: list[DiagnosedRule], found: Diagnosis) -> None:
    r2 = torch.full((len(rules), len(rules)), torch.nan)
    for (a, b), value in found.agreement.items():
        if a in rules and b in rules:
            r2[rules.index(a), rules.index(b)] = r2[rules.index(b), rules.index(a)] = value
    r2.fill_diagonal_(1.0)
    image = axes.imshow(r2.numpy(), vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.grid(visible=False)
    axes.set_yticks(range(len(rules)), [""] * len(rules))
    axes.set_xticks(range(len(rules)), [str(rule) for rule in rules], rotation=90, fontsize=6)
    axes.figure.colorbar(image, ax=axes, label="r² between relations")
