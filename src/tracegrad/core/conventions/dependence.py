"""Along which dimensions of its input a neuron's outputs depend on what is elsewhere in it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tracegrad.core.conventions.neuron_copy import NeuronCopy
from tracegrad.core.time_layout import Time, TimeLayout

_SCALES = [0.02 * 4**power for power in range(9)]  # of currents, up to 1,300: the threshold is unknown
_MANY = 256  # outputs at an index, each of which may change
_ENOUGH = 16  # changed outputs after an index, to conclude that those before it never change
_ENOUGH_ROWS = 60  # changed outputs, to conclude that those at other rows never change
_PLENTY = 500  # changed outputs, to stop
_PERTURBATIONS = 256  # of rows, to find T
_ALL_ROWS = 16

Influence = Literal["none", "weak", "causal", "mutual"]
"""Of indices on each other: none, too little to say more, on later ones alone, on earlier ones too."""


class Draw(NamedTuple):
    """A random input, other values to replace some of it, and the spikes that it gives."""

    x: Tensor
    other: Tensor
    spikes: Tensor


def draw(copy: NeuronCopy, shape: tuple[int, ...]) -> tuple[list[Draw], list[Tensor]]:
    """Inputs of a shape that leave the neuron neither silent nor saturated, and its spikes for inputs of all scales.

    Currents are positive, or of both signs; of either kind those of the two scales are taken whose spikes vary most.
    """
    generator = torch.Generator().manual_seed(0)
    repeats = max(1, min(8, _MANY * max(shape) // torch.Size(shape).numel()))
    draws: list[Draw] = []
    spikes: list[Tensor] = []

    def drawn(random: Callable[..., Tensor], scale: float) -> Iterator[Draw]:
        currents = scale * random((2, *shape), generator=generator)
        x, other = currents.to(copy.current.device, copy.current.dtype)
        fired = copy.spikes(x)
        if fired is not None:
            yield Draw(x, other, fired)

    for random in (torch.rand, torch.randn):
        tried = {scale: each for scale in _SCALES for each in drawn(random, scale)}
        spikes += [each.spikes for each in tried.values()]
        best = sorted(tried, key=lambda scale: -_variety(tried[scale].spikes))[:2]
        again = [each for scale in best * (repeats - 1) for each in drawn(random, scale)]
        draws += [each for each in (*(tried[scale] for scale in best), *again) if _variety(each.spikes) > 0.01]
    return draws, spikes


def _variety(spikes: Tensor) -> float:
    """How many outputs differ from the median, as a fraction."""
    return float(changed(spikes, spikes.flatten().median()).float().mean())


def changed(spikes: Tensor, others: Tensor) -> Tensor:
    """Where outputs differ by more than rounding."""
    return (spikes - others).abs() > tolerance(spikes) * spikes.abs().max()


def tolerance(spikes: Tensor) -> float:
    """The relative difference that counts as rounding."""
    return max(1e-3, 8 * torch.finfo(spikes.dtype).eps)


class Dependence:
    """How often the output at index j of one dimension changed with the input at index i.

    Attributes:
        dim: the dimension.
        hits: [size, size]; 0 for indices i that were not replaced, and where i = j.
    """

    def __init__(self, dim: int, shape: tuple[int, ...]) -> None:
        self.dim = dim
        self.hits = torch.zeros(shape[dim], shape[dim], dtype=torch.long)

    def add(self, copy: NeuronCopy, draws: Iterable[Draw]) -> "Dependence":
        """Replaces the values at one index after the other, at some of them, until much has changed."""
        for each in draws:
            self._perturb(copy, each, _indices(len(self.hits), self.dim == 0))
            if self.hits.sum() > _PLENTY:
                break
        return self

    def add_all(self, copy: NeuronCopy, draws: list[Draw]) -> "Dependence":
        """Replaces the values at every index, where `add` takes some of them."""
        if len(self.hits) <= _ALL_ROWS:
            return self
        for each in draws[: max(1, _PERTURBATIONS // len(self.hits))]:
            self._perturb(copy, each, range(len(self.hits)))
        return self

    def _perturb(self, copy: NeuronCopy, drawn: Draw, indices: Iterable[int]) -> None:
        for index in indices:
            perturbed = drawn.x.clone()
            perturbed.select(self.dim, index).copy_(drawn.other.select(self.dim, index))
            fired = copy.spikes(perturbed)
            if fired is not None:
                hits = changed(drawn.spikes, fired).movedim(self.dim, 0).reshape(len(self.hits), -1).sum(1)
                self.hits[index] += hits.cpu()
        self.hits.fill_diagonal_(0)

    @property
    def influence(self) -> Influence:
        """Of indices on each other."""
        if not self.hits.any():
            return "none"
        if self.hits.tril().any():
            return "mutual"
        return "causal" if self.is_telling else "weak"

    def foldings(self, most_steps: int) -> list[Time]:
        """The ways in which steps and examples may be folded here, the strictest first; T is a divisor of `most_steps`.

        Rows of [T * B, ...] depend on each B-th row alone, those of [B * T, ...] on rows of the same T.
        """
        folded = [
            (TimeLayout(dim, folded=True), steps)
            for steps in range(2, min(most_steps + 1, len(self.hits)))
            if most_steps % steps == 0
            for dim in (0, 1)
        ]
        return [time for time in folded if not self.hits[~self._same_example(time)].any()]

    @property
    def is_telling(self) -> bool:
        """Whether so much has changed that where nothing has, nothing does."""
        return int(self.hits.sum()) >= (_ENOUGH if self.dim else _ENOUGH_ROWS)

    def mixes_examples(self, time: Time) -> bool:
        """Whether, against a folding, outputs depend on the same or a later step of another example."""
        step, _ = self._places(time)
        not_before = step[:, None] >= step[None, :]
        return bool(self.hits[not_before & ~self._same_example(time)].any())

    def _same_example(self, time: Time) -> Tensor:
        _, example = self._places(time)
        return example[:, None] == example[None, :]

    def _places(self, time: Time) -> list[Tensor]:
        """The step and the example of each row."""
        layout, time_steps = time
        places = torch.arange(time_steps), torch.arange(len(self.hits) // time_steps)
        return [layout.merge(place) for place in torch.meshgrid(*places, indexing="ij")]


def _indices(size: int, first: bool) -> list[int]:
    """A few indices; more of the first dimension, since steps and examples may be folded there.

    Where it has twice the rows of the example, an example ends in the middle.
    """
    half = size // 2
    if not first:
        return list(range(max(0, half - 1), min(size, half + 2)))
    if size <= _ALL_ROWS:
        return list(range(size))
    return sorted({0, 1, 2, half - 3, half - 2, half - 1, half, half + 1, half + 2, size - 2})


def order_matters(copy: NeuronCopy, draws: Iterable[Draw], dim: int) -> bool:
    """Whether outputs are others, and not just elsewhere, where two indices of the inputs change places."""
    for x, _, spikes in draws:
        swapped = torch.arange(x.shape[dim], device=x.device)
        swapped[:2] = swapped[:2].flip(0)
        fired = copy.spikes(x.index_select(dim, swapped))
        if fired is not None and changed(spikes.index_select(dim, swapped), fired).float().mean() > 0.01:
            return True
    return False
