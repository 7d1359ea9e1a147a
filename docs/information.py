"""Draws the pictures of docs/which-information.md: `python docs/information.py` writes docs/images/information-*.svg.

All of them are of one fully connected layer, five neurons at each end, that sees two images for twelve steps. Spikes of
the post-synaptic neurons, relations and gradients are computed by tracegrad. The neurons of one number are a pair: 1 are
linked in time; 2 fire for image A, and 3 for image B, but not at the same steps; 4 and 5 have only their rates in common.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from figures import Theme, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core.equations.relation import RELATIONS as RELATION_TERMS
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.core.equations.trace import DECAY

T, N = 12, 5
IMAGES = ("image A", "image B")
PRE = (  # steps at which each neuron fires for image A, for image B
    ((3, 4, 9, 10), (2, 3, 7, 8)),
    ((1, 2, 4, 7, 8, 11), (6,)),
    ((9,), (1, 4, 5, 8, 9, 12)),
    ((1, 3, 6, 8, 9, 12), (2, 4, 5, 8, 10, 11)),
    ((1, 2, 3, 5, 6, 7, 8, 10, 11, 12), (1, 2, 4, 5, 6, 7, 9, 10, 11, 12)),
)
LINK = 0.3  # the weight from 1 to 1: two spikes in a row make it fire
OTHERS = ((0, 0), (0.28, 0.02), (0.02, 0.28), (0.25, 0.25), (0.45, 0.45))  # current from elsewhere, for A and for B
KINDS = ("timing", "image A", "image B", "rate", "rate")
ALPHA = 0.5


class Network(nn.Module):
    """A layer, what else reaches its neurons, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.synapse = nn.Linear(N, N, bias=False).double()
        self.neuron = tg.LIF()
        self.readout = nn.Linear(N, 2).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            self.synapse.weight.zero_()[0, 0] = LINK
            self.readout.weight.copy_(torch.randn(2, N, generator=generator, dtype=torch.float64))
        self.others = torch.tensor(OTHERS, dtype=torch.float64).T

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes [T, B, N] -> outputs [T, B, classes]; keeps the current and the spikes."""
        self.current = self.synapse(spikes)
        self.spikes = self.neuron(self.current + self.others)
        return self.readout(self.spikes)


def pre_spikes() -> Tensor:
    """[T, images, neurons]."""
    spikes = torch.zeros(T, 2, N, dtype=torch.float64)
    for neuron, images in enumerate(PRE):
        for image, steps in enumerate(images):
            spikes[[step - 1 for step in steps], image, neuron] = 1
    return spikes


@cache
def backward(**options: Any) -> tuple[Network, Tensor | None]:
    """The network after a backward pass with scaling attached, and R_hat if there is one."""
    model, spikes = Network(), pre_spikes()
    options = {key: dict(value) if key == "control" and isinstance(value, tuple) else value for key, value in options.items()}
    attachment = tg.attach(model, spikes, spiking_input=True, record=True, **options)
    outputs = model(spikes)
    model.current.retain_grad()
    tg.objectives.mean_cross_entropy(outputs, torch.tensor([0, 1])).backward()
    return model, attachment.relations.get("synapse")


def relation_of(**options: Any) -> Tensor:
    """R_hat of the mean over the steps, [post, pre]."""
    relation = backward(**{"time": "mean", **options})[1]
    if relation is None:
        raise AssertionError(f"{options} has no relation")
    return relation.detach()


# Parts of pictures


def raster(axes: Axes, spikes: Tensor, theme: Theme, colour: str, label: str) -> None:
    """Spikes [T, 2, N] of both images, one after the other, over their traces."""
    for image in range(2):
        for neuron in range(N):
            trace(axes, spikes[:, image, neuron], colour, N - neuron - 1, image * (T + 1), 0.42)
    axes.axvline(T + 1, color=theme.ink, lw=0.8)
    axes.set(xlim=(0.5, 2 * T + 2.2), ylim=(-0.15, N), ylabel=label)
    axes.set_yticks(np.arange(N) + 0.3, [f"{number + 1} {KINDS[number]}" for number in reversed(range(N))])
    axes.set_xticks([*range(2, T + 1, 2), *range(T + 3, 2 * T + 2, 2)], [*range(2, T + 1, 2)] * 2)
    axes.grid(visible=False)


def trace(axes: Axes, spikes: Tensor, colour: str, bottom: float = 0, start: float = 0, height: float = 1) -> None:
    """The trace as an area, its spikes as ticks; 1 is as high as `height`."""
    between = np.linspace(0, 1, 12)
    values = tg.spike_trace(spikes).numpy()
    times = np.concatenate([start + step + 1 + between for step in range(T)])
    curve = np.concatenate([value * DECAY**between for value in values])
    axes.fill_between(times, bottom, bottom + height * curve, color=colour, alpha=0.3, lw=0)
    for step in np.flatnonzero(spikes.numpy()):
        axes.plot([start + step + 1] * 2, [bottom, bottom + 1.6 * height], color=colour, lw=2)


def matrix(axes: Axes, values: Tensor, theme: Theme, limits: tuple[float, float], digits: int = 2, cmap: str = "Greys") -> None:
    """[post, pre], its numbers in the cells; the pairs are framed in the colour of what links them."""
    picture = axes.imshow(values.numpy(), cmap=cmap, vmin=limits[0], vmax=limits[1])
    for (row, column), value in np.ndenumerate(values.numpy()):
        red, green, blue, _ = picture.cmap(picture.norm(value))
        shade = "#000000" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "#ffffff"
        text = f"{value:.{digits}f}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=7.5)
    for number, kind in enumerate(KINDS):
        frame = Rectangle((number - 0.46, number - 0.46), 0.92, 0.92, fill=False, ec=colour_of(kind, theme), lw=2)
        axes.add_patch(frame)
    axes.set_xticks(range(N), range(1, N + 1))
    axes.set_yticks(range(N), range(1, N + 1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def colour_of(kind: str, theme: Theme) -> str:
    return {"timing": theme.joint, "rate": theme.pre}.get(kind, "#CC79A7")


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
    ends = pre_spikes()[:, 0, 0], backward()[0].spikes[:, 0, 0].detach()
    for column, (name, formula) in zip(panels.T, RELATIONS.items(), strict=True):
        terms = RELATION_TERMS[name]
        product = torch.zeros(T, dtype=torch.float64)
        for term in terms:
            both = ends if term.post_end == "post" else (ends[0], ends[0])
            signals = [tg.spike_trace(end) if kind == "trace" else end for end, kind in zip(both, (term.pre, term.post), strict=True)]
            part = term.sign * signals[0] * signals[1]
            column[2].bar(range(1, T + 1), part.tolist(), width=0.6, color=theme.joint if term.sign > 0 else "#CC79A7")
            product += part
        read = [{getattr(term, end) for term in terms} for end in ("pre", "post")]
        second = ends[1] if terms[0].post_end == "post" else ends[0]
        signal(column[0], ends[0], theme.pre, read[0])
        signal(column[1], second, theme.post if terms[0].post_end == "post" else theme.pre, read[1])
        column[0].set_title(f"{name}\n{formula}", fontsize=10.5)
        column[2].axhline(0, color=theme.ink, lw=0.8)
        column[2].set(ylim=(-2, 2.3), xlabel="time step")
        column[2].text(0.98, 0.98, f"mean {product.mean():+.2f}".replace("-", "−"), transform=column[2].transAxes, ha="right", va="top")
        hat = relation_of(relation=name)
        signed = any(term.sign < 0 for term in terms)
        matrix(column[3], hat, theme, (-1, 1) if signed else (0, 1), cmap="RdBu_r" if signed else "Greys")
        column[3].set(xlabel="pre-synaptic neuron")
        for axes in column[:3]:
            axes.set_xlim(0.4, T + 1)
            axes.set_xticks([3, 6, 9, 12])
            axes.tick_params(labelbottom=axes is column[2])
    labels = ("pre-synaptic\nsignal", "post-synaptic\nsignal", "product", "R_hat (max)\npost-synaptic neuron")
    for axes, label in zip(panels[:, 0], labels, strict=True):
        axes.set_ylabel(label)
    figure.align_ylabels(panels[:, 0])
    return figure


RELATIONS = {
    "positive": "trace × trace",
    "causal": "trace × spikes",
    "anticausal": "spikes × trace",
    "stdp": "causal − anticausal",
    "coincidence": "spikes × spikes",
    "pre_pre": "trace × own trace",
}


def signal(axes: Axes, fired: Tensor, colour: str, read: set[str]) -> None:
    """What a relation reads of a neuron: its trace, its spikes, or both; what it does not read is pale."""
    between = np.linspace(0, 1, 12)
    times = np.concatenate([step + 1 + between for step in range(T)])
    curve = np.concatenate([value * DECAY**between for value in tg.spike_trace(fired).numpy()])
    strong = "trace" in read
    axes.fill_between(times, 0, curve, color=colour, alpha=0.5 if strong else 0.1, lw=0)
    for step in np.flatnonzero(fired.numpy()):
        axes.plot([step + 1] * 2, [0, 1], color=colour, lw=2.5 if "spikes" in read else 0.7, alpha=1 if "spikes" in read else 0.5)
    axes.set_ylim(0, 1.6)
    axes.set_yticks([0, 1])


def normalizations(theme: Theme) -> Figure:
    """R_hat of the same spikes under each normalisation."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
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
    gradient, relation = torch.tensor([[0.8, 0.6]], dtype=torch.float64), torch.tensor([[0.1, 1.0]], dtype=torch.float64)
    for axes, name in zip(panels[:3], ("linear", "exponential", "norm_preserving"), strict=True):
        after = SCALINGS[name].function(gradient, relation, ALPHA)
        angle = torch.rad2deg(torch.acos((gradient * after).sum() / (gradient.norm() * after.norm())))
        axes.add_patch(Circle((0, 0), float(gradient.norm()), fill=False, ec=theme.ink, lw=0.8, ls=":"))
        for vector, colour, label in ((gradient, theme.pre, "G"), (after, theme.post, "g(G)")):
            x, y = vector[0].tolist()
            axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0})
            axes.text(x + 0.04, y + 0.03, label, color=colour)
        axes.set(xlim=(0, 1.3), ylim=(0, 1.3), aspect="equal", xlabel="weight 1, R_hat = 0.1")
        axes.set_title(f"{name}\nturns by {angle:.0f}°, length × {after.norm() / gradient.norm():.2f}", fontsize=10.5)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
    panels[0].set_ylabel("weight 2, R_hat = 1")
    hats = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    for name, colour, place in (("linear", theme.pre, (0.55, 0.72)), ("exponential", theme.post, (0.2, 1.3))):
        for alpha, line in ((0.1, "--"), (0.5, "-")):
            factor = SCALINGS[name].function(torch.ones_like(hats), hats, alpha)
            panels[3].plot(hats.flatten(), factor.flatten(), line, color=colour, label=f"{name}, alpha {alpha}")
    panels[3].set(xlabel="R_hat", ylabel="factor of the gradient", ylim=(0, None))
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
        name: factor_of(name, model.spikes.detach(), reached)[..., post, pre] for name in ("per_step", "mean", "final", "event")
    }
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (name, factor) in zip(panels.flat, factors.items(), strict=True):
        for image, colour, marker in ((0, theme.pre, "o"), (1, theme.post, "^")):
            at = np.flatnonzero(fired[:, image, pre].numpy())
            axes.vlines(at + 1, 0, factor[at, image], color=colour, lw=1, alpha=0.6)
            axes.plot(at + 1, factor[at, image], marker, ls="", ms=7, color=colour, label=IMAGES[image])
        check_factor(name, factor, added, post, pre)
        title = "apply=\"event\"" if name == "event" else f"time=\"{name}\""
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
    "per_step": "one for each step, of all images",
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
    figure = Figure(figsize=(13, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 2.7))
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
    panels[0].legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(0.3, 1))
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
            matrix(axes, values, theme, (0, 1), digits=3)
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
