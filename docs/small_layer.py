"""The layer of which docs/information.py draws pictures, and parts of them.

Five neurons at each end, that see two images for twelve steps. The neurons of one number are a pair: 1 are linked in
time; 2 fire for image A, and 3 for image B, but not at the same steps; 4 and 5 have only their rates in common.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from figures import Theme
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import tracegrad as tg
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


class Network(nn.Module):
    """A layer, what else reaches its neurons, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.synapse = nn.Linear(N, N, bias=False).double()
        self.neuron = tg.LIF()
        self.readout = nn.Linear(N, 2, bias=False).double()
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
    times, curve = decay(spikes)
    axes.fill_between(start + times, bottom, bottom + height * curve, color=colour, alpha=0.3, lw=0)
    fired = start + 1 + np.flatnonzero(spikes.numpy())
    axes.vlines(fired, bottom, bottom + 1.6 * height, color=colour, lw=2)


def decay(spikes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of the trace at the steps and between them."""
    between = np.linspace(0, 1, 6)
    times = np.concatenate([step + 1 + between for step in range(T)])
    return times, np.concatenate([value * DECAY**between for value in tg.spike_trace(spikes).numpy()])


def matrix(
    axes: Axes, values: Tensor, theme: Theme, limits: tuple[float, float], digits: int = 2, cmap: str = "Greys"
) -> None:
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
    """That of what links a pair."""
    return {"timing": theme.joint, "rate": theme.pre}.get(kind, "#CC79A7")


def signal(axes: Axes, spikes: Tensor, colour: str, read: set[str]) -> None:
    """What a relation reads of a neuron: its trace, its spikes, or both; what it does not read is pale."""
    times, curve = decay(spikes)
    axes.fill_between(times, 0, curve, color=colour, alpha=0.5 if "trace" in read else 0.1, lw=0)
    width, alpha = (2.5, 1) if "spikes" in read else (0.7, 0.5)
    axes.vlines(1 + np.flatnonzero(spikes.numpy()), 0, 1, color=colour, lw=width, alpha=alpha)
    axes.set_ylim(0, 1.6)
    axes.set_yticks([0, 1])
