"""Steps of currents as arrays for a compiled pass, and sums over them that it takes on its way."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Self, cast

from torch import Tensor

from tracegrad.core.compiled import Order, common_order, in_line, out_of_line
from tracegrad.snn.batch_norm import channels_last


@dataclass(frozen=True)
class Layout:
    """How a step is flattened: in the order of its memory, with a dimension for the channels where values need one.

    Attributes:
        order: of the dimensions in memory.
        sizes: of one step: (elements,), (outer, channels) where these are last in memory, or (outer, channels, inner).
    """

    order: Order
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor, values: Iterable[Tensor], normalised: bool) -> Self:
        """The layout of currents.

        Args:
            x: [T, B, ...]; the steps of all currents are shaped and laid out like its steps.
            values: each is one number or, shaped to broadcast to a step, one per channel.
            normalised: whether norms are taken too: of dimension 2, which then is last in memory.
        """
        order = channels_last(x) if normalised else cast(Order, common_order([x]))
        channels = [2] if normalised else [x.dim() - value.dim() for value in values if value.numel() > 1]
        if not channels:
            return cls(order, (x[0].numel(),))
        sizes, place = [x.shape[dimension] for dimension in order], order.index(channels[0])
        inner = sizes[place + 1 :]
        return cls(order, (prod(sizes[1:place]), sizes[place], *([prod(inner)] if inner else [])))

    def flatten(self, x: Tensor) -> Tensor:
        """[S, *sizes] of [S, ...]."""
        return in_line(x, self.order).unflatten(1, self.sizes)

    def unflatten(self, flat: Tensor, like: Tensor) -> Tensor:
        """The inverse of `flatten`; each step is shaped and laid out like those of `like`."""
        return out_of_line(flat, like, self.order)

    def spread(self, value: Tensor) -> Tensor:
        """One number, or one per channel, shaped to broadcast to `sizes`."""
        return value.reshape(()) if value.numel() == 1 else value.reshape(-1, *(1 for _ in self.sizes[2:]))


def start_sum(summands: Tensor, value: Tensor) -> Tensor:
    """What the compiled pass does of a sum over a step: the innermost dimension, in the loop that makes the summands.

    Where that is the channels', and each has a sum of its own, a compiled sum would take a second, slower loop.

    Args:
        summands: of `Layout.sizes`.
        value: the value, `Layout.spread`, whose gradient the sum is.
    """
    return summands if value.dim() == 1 else summands.sum(-1)


def finish_sum(started: Tensor, value: Tensor) -> Tensor:
    """The gradient of a value, shaped like it, from what `start_sum` returned."""
    return (started.sum() if value.numel() == 1 else started.sum(0)).reshape(value.shape)
