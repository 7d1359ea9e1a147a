"""Draws the figures of the documentation: `python docs/figures.py` writes docs/images/*.svg, light and dark.

Every number in them is computed by tracegrad itself; two are taken from the report in results/fashion-mnist. The frames
of the data set moving, moving.png, are on white paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core.equations.trace import DECAY
from tracegrad.lab.data import DataOptions, load
from tracegrad.lab.report.style import COLOURS, STYLE

IMAGES = Path(__file__).parent / "images"
REPORT = Path(__file__).parents[1] / "results" / "fashion-mnist" / "report.html"
T = 12


@dataclass(frozen=True)
class Theme:
    """Colours that stand out on the page's paper."""

    ink: str
    pre: str
    post: str
    joint: str


THEMES = {
    "light": Theme("#1f1f1f", COLOURS[0], COLOURS[1], COLOURS[2]),
    "dark": Theme("#e4e4e4", COLOURS[5], COLOURS[4], "#3fc79a"),
}


def style(theme: Theme) -> dict[str, Any]:
    """Transparent paper, and ink that stands out on the page's."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        **STYLE,
        **dict.fromkeys(inked, theme.ink),
        "font.size": 11,
        "axes.titlesize": 11,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "grid.alpha": 0.25,
    }


def neuron(theme: Theme) -> Figure:
    """The same current into a neuron with soft and with hard reset."""
    generator = torch.Generator().manual_seed(4)
    current = 0.1 + 0.35 * torch.rand(T, 1, generator=generator, dtype=torch.float64)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, reset in zip(panels, ("soft", "hard"), strict=True):
        lif = tg.LIF(leak=0.9, threshold=0.5, reset=reset)
        spikes = lif(current).flatten().tolist()
        _membrane(axes, current.flatten().tolist(), spikes, lif, theme)
        axes.set(title=f"{reset} reset", xlabel="time step")
    panels[0].set_ylabel("membrane")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _membrane(axes: Axes, current: list[float], spikes: list[float], lif: tg.LIF, theme: Theme) -> None:
    """u(t), what the reset makes of it, and its way to the next step."""
    times, path, after = [0.0], [0.0], 0.0
    befores: list[float] = []
    for step, (z, spike) in enumerate(zip(current, spikes, strict=True), start=1):
        before = lif.leak * after + z
        if spike != (before >= lif.threshold):
            raise AssertionError("the neuron fires elsewhere than its equations say")
        after = before - spike * lif.threshold if lif.reset == "soft" else before * (1 - spike)
        befores.append(before)
        times += [step, step]
        path += [before, after]
    steps = np.arange(1, T + 1)
    fired = np.array(spikes) > 0
    axes.bar(steps, current, width=0.25, color=theme.pre, alpha=0.45, lw=0, label="current z")
    axes.plot(times, path, color=theme.ink, lw=1.2, label="membrane, u then v")
    axes.axhline(lif.threshold, color=theme.joint, ls="--", lw=1.2, label="threshold")
    axes.plot(steps[fired], np.array(befores)[fired], ls="", marker="o", ms=7, color=theme.post, label="spike")
    axes.set_xticks(steps)


def relation(theme: Theme) -> Figure:
    """Spikes and traces at the two ends of a synapse, their relation at every step, and that of a whole layer."""
    generator = torch.Generator().manual_seed(3)
    pre = (torch.rand(T, 1, 6, generator=generator) < torch.linspace(0.2, 0.7, 6)).double()
    post = (torch.rand(T, 1, 4, generator=generator) < torch.linspace(0.3, 0.7, 4)).double()
    traces = tg.spike_trace(pre), tg.spike_trace(post)
    layer = nn.Linear(6, 4)
    raw = torch.stack([tg.correlate(x_pre, x_post, layer) for x_pre, x_post in zip(*traces, strict=True)])
    figure = Figure(figsize=(9.4, 5), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.5, 1))
    left = [figure.add_subplot(grid[row, 0]) for row in range(3)]
    _trace(left[0], pre[:, 0, 3], theme.pre, "pre-synaptic\ntrace")
    _trace(left[1], post[:, 0, 2], theme.post, "post-synaptic\ntrace")
    left[2].bar(range(1, T + 1), raw[:, 2, 3].tolist(), width=0.5, color=theme.joint)
    left[2].set(ylabel="R(t), their\nproduct", xlabel="time step")
    for axes in left:
        axes.set_xlim(0.4, T + 1)
        axes.set_xticks(range(1, T + 1))
        axes.yaxis.set_label_coords(-0.09, 0.5)
    for axes in left[:2]:
        axes.tick_params(labelbottom=False)
    _matrix(figure, figure.add_subplot(grid[:, 1]), raw[-1] / raw[-1].max())
    return figure


def _trace(axes: Axes, spikes: Tensor, colour: str, label: str) -> None:
    """Spikes as ticks, the trace with its decay between the steps."""
    values = tg.spike_trace(spikes).numpy()
    between = np.linspace(0, 1, 20)
    times = np.concatenate([[1.0], *(step + 1 + between for step in range(T))])
    axes.plot(times, np.concatenate([[0.0], *(value * DECAY**between for value in values)]), color=colour)
    fired = np.flatnonzero(spikes.numpy()) + 1
    axes.plot(fired, np.full(len(fired), 1.75), ls="", marker="|", ms=11, mew=2.5, color=colour)
    axes.set(ylim=(0, 2), ylabel=label)
    axes.set_yticks([0, 1])


def _matrix(figure: Figure, axes: Axes, relation: Tensor) -> None:
    """R_hat of a fully connected layer, with the scale that it gives in every cell."""
    picture = axes.imshow(relation.numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(relation.numpy()):
        shade = "#000000" if value > 0.5 else "#ffffff"
        axes.text(column, row, f"{0.1 * value + 0.9:.2f}", ha="center", va="center", color=shade, fontsize=9)
    axes.set(
        title=f"layer of 6 x 4 at step {T}: R_hat (colour)\nand scale at alpha = 0.1 (number)",
        xlabel="pre-synaptic neuron",
    )
    axes.set_ylabel("post-synaptic neuron")
    axes.set_xticks(range(6), range(1, 7))
    axes.set_yticks(range(4), range(1, 5))
    axes.grid(visible=False)
    axes.add_patch(mpl.patches.Rectangle((2.5, 1.5), 1, 1, fill=False, ec="#ffffff", lw=2))
    figure.colorbar(picture, ax=axes, location="bottom", shrink=0.8)


def of_report(name: str, shade: str) -> str:
    """A figure of the report as a file of its own, in the colours of the report's light or dark theme."""
    page = REPORT.read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", page)[:2]
    colours = dict(re.findall(r"(--\w+): (#\w+)", light if shade == "light" else dark))
    found = re.search(rf'<figure id="fashion-mnist-{name}">.*?<svg (.*?</svg>)', page, re.DOTALL)
    if found is None:
        raise ValueError(f"{REPORT} has no figure {name!r}")
    svg = re.sub(r"var\((--\w+)\)", lambda variable: colours[variable[1]], found[1])
    svg = re.sub(r' style="max-width:[^"]*"', "", svg, count=1)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {svg}\n'


def moving() -> Figure:
    """A recording of the data set moving and its twin: OFF events in blue, ON events in orange, a gap after a visit."""
    data = load(DataOptions("moving", train_size=10, options={"repeats": 1, "size": 24, "reach": 4.0}))
    figure = Figure(figsize=(11, 1.9), layout="constrained")
    panels = figure.subplots(2, 19, width_ratios=[*([1, 1, 1, 1, 0.2] * 3), 1, 1, 1, 1])
    hues = [torch.tensor(mpl.colors.to_rgb(COLOURS[hue])) for hue in (0, 1)]
    for name, recording, row in zip(data.classes, data.train.images[2:4], panels, strict=True):
        for axes in row:
            axes.set_axis_off()
        shown = [axes for place, axes in enumerate(row) if place % 5 < 4]
        for step, (axes, frame) in enumerate(zip(shown, recording.float(), strict=True)):
            ink = sum(events[..., None] * (1 - hue) for events, hue in zip(frame, hues, strict=True))
            axes.imshow((1 - ink).clamp(0, 1).numpy(), interpolation="nearest", extent=(0, 1, 0, 1))
            axes.add_patch(mpl.patches.Rectangle((0, 0), 1, 1, fill=False, ec="0.75", lw=1))
            axes.set_title("" if step % 4 else f"{10 * step} ms", fontsize=9)
        shown[0].text(-0.15, 0.5, name, transform=shown[0].transAxes, ha="right", va="center")
    return figure


FIGURES: dict[str, Callable[[Theme], Figure]] = {"neuron": neuron, "relation": relation}
OF_REPORT = {"report-scale": "scale-1", "report-raster": "raster"}


def main() -> None:
    """Writes every figure in both themes."""
    IMAGES.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        moving().savefig(IMAGES / "moving.png", dpi=150, metadata={"Software": None})
    for shade in THEMES:
        for file, name in OF_REPORT.items():
            (IMAGES / f"{file}-{shade}.svg").write_text(of_report(name, shade), encoding="utf-8")
    write(FIGURES)


def write(figures: dict[str, Callable[[Theme], Figure]]) -> None:
    """Writes figures in both themes."""
    for shade, theme in THEMES.items():
        for name, draw in figures.items():
            with mpl.rc_context(style(theme)):
                draw(theme).savefig(IMAGES / f"{name}-{shade}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
