"""Along which dimensions of its input a neuron's outputs depend on what is elsewhere in it."""

from collections.abc import Iterable
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tracegrad.core.neuron_copy import NeuronCopy
from tracegrad.core.time_layout import TimeLayout

_SCALES = [0.02 * 4**power for power in range(9)]  # of currents, up to 1,300: the threshold is unknown
_ENOUGH = 30  # changed outputs, to conclude anything from where there are none
_MANY = 64  # outputs that should have a chance to change
_ALL_ROWS = 12

Influence = Literal["none", "weak", "causal", "mutual"]
"""Of indices on each other: some on later ones alone (causal), or on earlier ones too (mutual)."""


class Draw(NamedTuple):
    """A random input, other values to replace some of it, and the spikes that it gives."""

    x: Tensor
    other: Tensor
    spikes: Tensor


def draw(copy: NeuronCopy, shape: tuple[int, ...]) -> tuple[list[Draw], list[Tensor]]:
    """Inputs of a shape for which the neuron is neither silent nor saturated, and its spikes for those of all scales.

    Currents are positive or of both signs, and of those scales for which the spikes vary most.
    """
    generator = torch.Generator().manual_seed(0)
    random = {"positive": torch.rand, "signed": torch.randn}
    repeats = max(1, min(8, _MANY * max(shape) // torch.Size(shape).numel()))
    draws: list[Draw] = []
    spikes: list[Tensor] = []

    def drawn(kind: str, scale: float) -> Draw | None:
        x, other = (
            (scale * random[kind](shape, generator=generator)).to(copy.current.device, copy.current.dtype)
            for _ in range(2)
        )
        fired = copy.spikes(x)
        return None if fired is None else Draw(x, other, fired)

    for kind in random:
        tried = {scale: each for scale in _SCALES if (each := drawn(kind, scale)) is not None}
        spikes += [each.spikes for each in tried.values()]
        best = sorted(tried, key=lambda scale: -_variety(tried[scale].spikes))[:2]
        again = [each for scale in best for _ in range(repeats - 1) if (each := drawn(kind, scale)) is not None]
        draws += [each for each in (*(tried[scale] for scale in best), *again) if _variety(each.spikes) > 0.01]
    return draws, spikes


def _variety(spikes: Tensor) -> float:
    """How many outputs differ from most others."""
    return float(changed(spikes, spikes.flatten().median()).float().mean())


def changed(spikes: Tensor, others: Tensor) -> Tensor:
    """Where outputs differ by more than rounding."""
    return (spikes - others).abs() > tolerance(spikes) * spikes.abs().max()


def tolerance(spikes: Tensor) -> float:
    """The relative difference that is rounding."""
    return max(1e-3, 8 * torch.finfo(spikes.dtype).eps)


class Dependence:
    """How often the output at index j of one dimension changed with the input at index i.

    Attributes:
        hits: [size, size]; 0 for indices i that were not perturbed, and on the diagonal.
    """

    def __init__(self, dim: int, shape: tuple[int, ...]) -> None:
        self.dim = dim
        self.hits = torch.zeros(shape[dim], shape[dim], dtype=torch.long)

    def add(self, copy: NeuronCopy, draws: Iterable[Draw], every_index: bool = False) -> "Dependence":
        """Perturbs each input at one index after the other: at a few, or at every one."""
        size = len(self.hits)
        for x, other, spikes in draws:
            for index in range(size) if every_index else _indices(size, self.dim == 0):
                perturbed = x.clone()
                perturbed.select(self.dim, index).copy_(other.select(self.dim, index))
                fired = copy.spikes(perturbed)
                if fired is not None:
                    self.hits[index] += changed(spikes, fired).movedim(self.dim, 0).reshape(size, -1).sum(1).cpu()
        self.hits.fill_diagonal_(0)
        return self

    @property
    def influence(self) -> Influence:
        """Of indices on each other."""
        total, earlier = int(self.hits.sum()), int(self.hits.tril().sum())
        if total < _ENOUGH:
            return "weak" if total else "none"
        return "mutual" if earlier else "causal"

    def folding(self, most_steps: int) -> tuple[TimeLayout, int] | None:
        """The layout of steps and examples in this dimension, and T, a divisor of `most_steps`; None if there is none.

        Rows of [T * B, ...] depend on each B-th row alone, those of [B * T, ...] on rows of the same T.
        """
        if self.influence in ("none", "weak"):
            return None
        sources, targets = (index.tolist() for index in self.hits.nonzero(as_tuple=True))
        period = gcd(*(target - source for source, target in zip(sources, targets, strict=True)))
        for steps in (
            steps for steps in range(2, most_steps + 1) if most_steps % steps == 0 and steps < len(self.hits)
        ):
            if steps * period == len(self.hits):
                return TimeLayout(0, folded=True), steps
            if all(source // steps == target // steps for source, target in zip(sources, targets, strict=True)):
                return TimeLayout(1, folded=True), steps
        return None

    def mixes_examples(self, layout: TimeLayout, time_steps: int) -> bool:
        """Whether outputs depend, against a layout, on the same or a later step of another example."""
        places = torch.arange(time_steps), torch.arange(len(self.hits) // time_steps)
        step, example = (layout.merge(each).flatten() for each in torch.meshgrid(*places, indexing="ij"))
        later = step[:, None] >= step[None, :]
        return bool(self.hits[later & (example[:, None] != example[None, :])].any())


def _indices(size: int, first: bool) -> list[int]:
    """A few indices; more of the first dimension, since steps and examples may be folded there.

    Where it has twice the rows of the example, an example ends in the middle.
    """
    half = size // 2
    if not first:
        return sorted({0, half, size - 1})
    if size <= _ALL_ROWS:
        return list(range(size))
    return sorted({0, 1, 2, half - 3, half - 2, half - 1, half, half + 1, half + 2, size - 2})
