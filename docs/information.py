"""Draws the pictures of docs/which-information.md: `python docs/information.py` writes docs/images/information-*.svg.

All of them are of the layer in small_layer.py. Post-synaptic spikes, relations and gradients are computed by tracegrad.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from figures import Theme, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle
from small_layer import IMAGES, N, T, backward, matrix, pre_spikes, raster, relation_of, signal
from torch import Tensor

import tracegrad as tg
from tracegrad.core.equations.relation import RELATIONS as TERMS
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.core.equations.trace import DECAY

ALPHA = 0.5


def spikes(theme: Theme) -> Figure:
    """The spikes of both ends, and R of the layer."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(2.4, 1))
    ends = (("pre-synaptic", pre_spikes(), theme.pre), ("post-synaptic", backward()[0].spikes.detach(), theme.post))
    for row, (name, fired, colour) in enumerate(ends):
        axes = figure.add_subplot(grid[row, 0])
        raster(axes, fired, theme, colour, name)
        if not row:
            for image, title in enumerate(IMAGES):
                axes.text((image + 0.5) * (T + 1) + 0.5, N + 0.1, title, ha="center")
    axes.set_xlabel("time step")
    raw = relation_of(normalize="none")
    axes = figure.add_subplot(grid[:, 1])
    matrix(axes, raw, theme, (0, float(raw.max())))
    axes.set(title="R, mean over the steps", xlabel="pre-synaptic neuron", ylabel="post-synaptic neuron")
    return figure


def relations(theme: Theme) -> Figure:
    """For each relation: the signals of the pair 1 for image A, their product, and R_hat of the layer."""
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    panels = figure.subplots(4, len(RELATIONS), height_ratios=(0.8, 0.8, 0.8, 1.8), sharey="row")
    for column, (name, formula) in zip(panels.T, RELATIONS.items(), strict=True):
        column[0].set_title(f"{name}\n{formula}", fontsize=10.5)
        _signals(column[:3], TERMS[name], theme)
        signed = any(term.sign < 0 for term in TERMS[name])
        limits, cmap = ((-1, 1), "RdBu_r") if signed else ((0, 1), "Greys")
        matrix(column[3], relation_of(relation=name), theme, limits, cmap=cmap)
        column[3].set(xlabel="pre-synaptic neuron")
    labels = ("pre-synaptic\nsignal", "post-synaptic\nsignal", "product", "R_hat (max)\npost-synaptic neuron")
    for axes, label in zip(panels[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    figure.align_ylabels(panels[:, 0])
    return figure


def _signals(panels: Sequence[Axes], terms: tuple[tg.Term, ...], theme: Theme) -> None:
    """What a relation reads of the neurons 1 for image A, and the products of its terms."""
    pre, post = pre_spikes()[:, 0, 0], backward()[0].spikes[:, 0, 0].detach()
    own = terms[0].post_end == "pre"
    ends = (pre, pre if own else post)
    mean = 0.0
    for term in terms:
        kinds = (term.pre, term.post)
        read = [tg.spike_trace(end) if kind == "trace" else end for end, kind in zip(ends, kinds, strict=True)]
        product = term.sign * read[0] * read[1]
        panels[2].bar(range(1, T + 1), product.tolist(), 0.6, color=theme.joint if term.sign > 0 else "#CC79A7")
        mean += float(product.mean())
    signal(panels[0], ends[0], theme.pre, {term.pre for term in terms})
    signal(panels[1], ends[1], theme.pre if own else theme.post, {term.post for term in terms})
    panels[2].axhline(0, color=theme.ink, lw=0.8)
    panels[2].set(ylim=(-1.6, 3.2), yticks=(0, 2), xlabel="time step")
    shown = f"mean {mean:+.2f}".replace("-", "−")
    panels[2].text(0.98, 0.98, shown, transform=panels[2].transAxes, ha="right", va="top")
    for axes in panels:
        axes.set_xlim(0.4, T + 1)
        axes.set_xticks([3, 6, 9, 12])
        axes.tick_params(labelbottom=axes is panels[2])


RELATIONS = {
    "positive": "trace × trace",
    "causal": "trace × spikes",
    "anticausal": "spikes × trace",
    "stdp": "causal − anticausal",
    "coincidence": "spikes × spikes",
    "pre_pre": "trace × own trace",
}


def normalizations(theme: Theme) -> Figure:
    """R_hat of the same spikes under each normalisation."""
    figure = Figure(figsize=(11, 6.9), layout="constrained")
    panels = figure.subplots(2, 4)
    for axes, (title, options, limits, cmap) in zip(panels.flat, NORMALIZATIONS, strict=True):
        values = relation_of(**options)
        matrix(axes, values, theme, limits or (0, float(values.max())), cmap=cmap)
        axes.set_title(title, fontsize=10.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("post-synaptic neuron")
    for axes in panels[1]:
        axes.set_xlabel("pre-synaptic neuron")
    return figure


NORMALIZATIONS = (
    ("none\nR itself", {"normalize": "none"}, None, "Greys"),
    ("max\nR / largest of the layer", {"normalize": "max"}, (0, 1), "Greys"),
    ("mean\nR / mean of the layer", {"normalize": "mean"}, None, "Greys"),
    ("neuron\nR / largest of each row", {"normalize": "neuron"}, (0, 1), "Greys"),
    ("cosine\nR / both ends' lengths", {"normalize": "cosine"}, (0, 1), "Greys"),
    ("centered\nPearson's correlation", {"normalize": "centered"}, (-1, 1), "RdBu_r"),
    ("lift\nR / R if independent", {"normalize": "lift"}, (0, 2), "RdBu_r"),
    ("max, inverted\n1 − R_hat", {"normalize": "max", "inverted": True}, (0, 1), "Greys"),
)


def scalings(theme: Theme) -> Figure:
    """A gradient of two weights before and after each scaling: its direction and its length; and factors."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1))
    gradient, relation = (
        torch.tensor([[0.8, 0.6]], dtype=torch.float64),
        torch.tensor([[0.1, 1.0]], dtype=torch.float64),
    )
    for axes, name in zip(panels[:3], ("linear", "exponential", "norm_preserving"), strict=True):
        after = SCALINGS[name].function(gradient, relation, ALPHA)
        angle = torch.rad2deg(torch.acos((gradient * after).sum() / (gradient.norm() * after.norm())))
        axes.add_patch(Circle((0, 0), float(gradient.norm()), fill=False, ec=theme.ink, lw=0.8, ls=":"))
        for vector, colour, label in ((gradient, theme.pre, "G"), (after, theme.post, "g(G)")):
            x, y = vector[0].tolist()
            axes.annotate(
                "",
                (x, y),
                (0, 0),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0},
            )
            axes.text(x + 0.04, y + 0.03, label, color=colour)
        axes.set(xlim=(0, 1.3), ylim=(0, 1.3), aspect="equal", xlabel="weight 1, R_hat = 0.1")
        axes.set_title(f"{name}\nturns by {angle:.0f}°, length × {after.norm() / gradient.norm():.2f}", fontsize=10.5)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
    panels[0].set_ylabel("weight 2, R_hat = 1")
    hats = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    for name, colour in (("linear", theme.pre), ("exponential", theme.post)):
        for alpha, line in ((0.1, "--"), (0.5, "-")):
            factor = SCALINGS[name].function(torch.ones_like(hats), hats, alpha)
            panels[3].plot(hats.flatten(), factor.flatten(), line, color=colour, label=f"{name}, alpha {alpha}")
    panels[3].set(xlabel="R_hat", ylabel="factor of the gradient", ylim=(0, None), box_aspect=1)
    panels[3].legend(fontsize=8.5, loc="lower right")
    return figure


def inside(theme: Theme) -> Figure:
    """What each input spike of neuron 4 adds to the gradient of a weight, and the factors that it gets."""
    model, _ = backward(alpha=0.0)
    post, pre = 1, 3  # neuron 2, neuron 4
    fired, reached = pre_spikes(), model.current.grad
    if reached is None:
        raise AssertionError("the current has no gradient")
    added = fired[..., pre] * reached[..., post]  # [T, images]
    factors = {
        name: factor_of(name, model.spikes.detach(), reached)[..., post, pre]
        for name in ("per_step", "mean", "final", "event")
    }
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (name, factor) in zip(panels.flat, factors.items(), strict=True):
        for image, colour, marker, shift in ((0, theme.pre, "o", 0.9), (1, theme.post, "^", 1.1)):
            at = np.flatnonzero(fired[:, image, pre].numpy())
            axes.vlines(at + shift, 0, factor[at, image], color=colour, lw=1, alpha=0.6)
            axes.plot(at + shift, factor[at, image], marker, ls="", ms=7, color=colour, label=IMAGES[image])
        check_factor(name, factor, added, post, pre)
        title = 'apply="event"' if name == "event" else f'time="{name}"'
        axes.set_title(f"{title}: {IN_WORDS[name]}", fontsize=10.5)
        axes.axhline(1, color=theme.ink, lw=0.8, ls=":")
    for axes in panels[:, 0]:
        axes.set_ylabel("factor of the spike")
    for axes in panels[1]:
        axes.set_xlabel("time step")
        axes.set_xticks(range(1, T + 1))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


IN_WORDS = {
    "per_step": "one for each step, the same for both images",
    "mean": "one for all",
    "final": "one for all, of the last step",
    "event": "its own",
}


def factor_of(name: str, post: Tensor, reached: Tensor) -> Tensor:
    """The factor of each event, [T, images, post, pre], with `ALPHA`."""
    ends = tg.spike_trace(pre_spikes()), tg.spike_trace(post)
    if name != "event":
        hat = backward(alpha=ALPHA, time=name)[1]
        assert hat is not None  # noqa: S101 - it is recorded
        return (ALPHA * hat.detach() + 1 - ALPHA).reshape(-1, 1, N, N).expand(T, 2, N, N)
    product = ends[1][..., None] * ends[0][..., None, :]
    spikes = pre_spikes()[..., None, :].expand_as(product)
    return ALPHA * product / (product * spikes).sum() * spikes.sum() + 1 - ALPHA


def check_factor(name: str, factor: Tensor, added: Tensor, post: int, pre: int) -> None:
    """That the factors give the gradient that an attached network has."""
    options = {"apply": "event"} if name == "event" else {"time": name}
    model, _ = backward(alpha=ALPHA, **options)
    gradient = model.synapse.weight.grad
    if gradient is None or not torch.isclose((factor * added).sum(), gradient[post, pre], rtol=1e-9, atol=1e-12):
        raise AssertionError(f"the factors of {name} are not those of the attached network")


def controls(theme: Theme) -> Figure:
    """What a control leaves of the signals, of R_hat or of the scale."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 3.2))
    panels = above.subplots(1, 3, sharey=True)
    pre, post = pre_spikes()[..., 0], backward()[0].spikes[..., 0].detach()
    expected = [flat(end) for end in (pre, post)]
    signals = {
        "no control": (tg.spike_trace(pre), tg.spike_trace(post)),
        "counts": (expected[0], expected[1]),
        "other_image": (tg.spike_trace(pre), tg.spike_trace(post).roll(1, 1)),
    }
    for axes, (name, ends) in zip(panels, signals.items(), strict=True):
        for end, colour, label in zip(ends, (theme.pre, theme.post), ("pre-synaptic", "post-synaptic"), strict=True):
            line = end[:, 0].tolist()
            axes.plot(range(1, T + 1), line, color=colour, marker="o", ms=4, label=label)
        mean = float((ends[0] * ends[1]).sum(1).mean())
        options = {} if name == "no control" else {"control": name}
        if not np.isclose(mean, float(relation_of(normalize="none", **options)[0, 0])):
            raise AssertionError(f"the signals of {name} are not those of an attached network")
        axes.set_title(f"{name}: traces of pair 1 for image A, R = {mean:.2f}", fontsize=10.5)
        axes.set_xlabel("time step")
        axes.set_xticks(range(2, T + 1, 2))
    panels[0].set_ylabel("trace")
    panels[1].legend(loc="upper right")
    _matrices(below, theme)
    return figure


def flat(end: Tensor) -> Tensor:
    """The trace that is expected where spikes are shuffled in time: count / T * sum over j = 0..t of decay^j."""
    weights = torch.cumsum(DECAY ** torch.arange(T, dtype=end.dtype), 0)
    return end.sum(0) / T * weights[:, None]


def _matrices(figure: SubFigure, theme: Theme) -> None:
    """R_hat of each control that has one, and scales of the others."""
    whole = relation_of()
    scale = float((0.1 * whole + 0.9).mean())
    panels = figure.subplots(2, 5)
    for axes, (name, text) in zip(panels.flat, CONTROLS.items(), strict=True):
        if name == "empty":
            axes.set_axis_off()
            continue
        if name in ("mean_scale", "placebo"):
            values = torch.full_like(whole, scale) if name == "mean_scale" else 1e-6 * whole + (1 - 1e-6)
            matrix(axes, values, theme, (0, 3), digits=3)
        else:
            values = relation_of() if name == "no control" else relation_of(control=name)
            matrix(axes, values, theme, (0, 1))
        axes.set_title(f"{name}\n{text}", fontsize=10.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("post-synaptic neuron")
    for axes in panels[1]:
        axes.set_xlabel("pre-synaptic neuron")


CONTROLS = {
    "no control": "R_hat",
    "counts": "timing is out",
    "other_image": "what images share is out",
    "rank_one": "out × in",
    "shuffle": "each row permuted",
    "pre_rate": "means of columns",
    "post_rate": "means of rows",
    "mean_scale": "scale: one number",
    "placebo": "scale: 1, nearly",
    "empty": "",
}


FIGURES = {
    "information-spikes": spikes,
    "information-relations": relations,
    "information-normalizations": normalizations,
    "information-scalings": scalings,
    "information-inside": inside,
    "information-controls": controls,
}

if __name__ == "__main__":
    write(FIGURES)
