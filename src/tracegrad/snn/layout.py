"""Steps of currents as arrays for a compiled pass, and sums over them that it takes on its way."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Self, cast

from torch import Tensor

from tracegrad.core.compiled import Order, common_order, flatten_steps, unflatten_steps
from tracegrad.snn.batch_norm import channels_last


@dataclass(frozen=True)
class Layout:
    """How a step is flattened, in the order of its memory: to one dimension, or to two where values differ along one.

    Attributes:
        order: of the dimensions in memory.
        sizes: of one step: (elements,), or (rows, columns).
        copies: how often the values per channel are repeated to make one for each row; None where there is one for each
            column, because the channels are last in memory.
    """

    order: Order
    sizes: tuple[int, ...]
    copies: int | None = None

    @classmethod
    def of(cls, x: Tensor, values: Iterable[Tensor], normalised: bool) -> Self:
        """The layout of currents.

        Args:
            x: [T, B, ...]; the steps of all currents are shaped and laid out like its steps.
            values: each is one number or, shaped to broadcast to a step, one per channel.
            normalised: whether norms are taken too: of dimension 2, which then is last in memory.
        """
        order = channels_last(x) if normalised else cast(Order, common_order([x]))
        dimensions = [2] if normalised else [x.dim() - value.dim() for value in values if value.numel() > 1]
        if not dimensions:
            return cls(order, (x[0].numel(),))
        place, channels = order.index(dimensions[0]), x.shape[dimensions[0]]
        outer, inner = (prod(x.shape[each] for each in part) for part in (order[1:place], order[place + 1 :]))
        if place == len(order) - 1:
            return cls(order, (outer, channels))
        return cls(order, (outer * channels, inner), outer)

    def flatten(self, x: Tensor) -> Tensor:
        """[S, *sizes] of [S, ...]."""
        return flatten_steps(x, self.order).unflatten(1, self.sizes)

    def unflatten(self, flat: Tensor, like: Tensor) -> Tensor:
        """The inverse of `flatten`; each step is shaped and laid out like those of `like`."""
        return unflatten_steps(flat, like, self.order)

    def spread(self, value: Tensor) -> Tensor:
        """One number, or one per channel, shaped to broadcast to `sizes`."""
        if value.numel() == 1:
            return value.reshape(())
        return value.flatten() if self.copies is None else value.flatten().repeat(self.copies)[:, None]

    @property
    def sums_rows(self) -> bool:
        """Whether the compiled pass starts sums over a layer, in the loop that makes the summands: along memory.

        Where the channels are last in memory it leaves them to PyTorch: a sum per column would take a second and slower
        loop, and rows are short.
        """
        return self.copies is not None or len(self.sizes) == 1

    def finish_sum(self, started: Tensor, value: Tensor) -> Tensor:
        """The gradient of a value, shaped like it, from summands [*sizes], or from their sums if `sums_rows`."""
        if value.numel() == 1:
            return started.sum().reshape(value.shape)
        return started.reshape(-1, value.numel()).sum(0).reshape(value.shape)
