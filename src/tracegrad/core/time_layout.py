"""Where time is in a tensor: [T, B, ...], [B, T, ...], last, folded into the batch, or nowhere in a single step."""

from typing import NamedTuple

from torch import Tensor


class TimeLayout(NamedTuple):
    """Where the T steps of a tensor lie.

    Attributes:
        dim: the dimension of time; None if the tensor is a single step, [B, ...].
        folded: dimension 0 holds steps and examples: [T * B, ...] for dim 0, [B * T, ...] for dim 1.
        is_position: time is a position of a convolution, which a single step needs, too: it keeps one of size 1.
    """

    dim: int | None = 0
    folded: bool = False
    is_position: bool = False

    def steps_in(self, x: Tensor) -> int | None:
        """T, where the shape tells; None if time is folded."""
        if self.dim is None:
            return 1
        return None if self.folded else x.shape[self.dim]

    def split(self, x: Tensor, time_steps: int) -> Tensor:
        """A view [T, B, ...] of a tensor in this layout."""
        if self.dim is None:
            return x.unsqueeze(0)
        if not self.folded:
            steps = x.movedim(self.dim, 0)
            return steps.unsqueeze(self.dim + 1) if self.is_position else steps
        return x.unflatten(0, (time_steps, -1)) if self.dim == 0 else x.unflatten(0, (-1, time_steps)).transpose(0, 1)

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of `split`."""
        if self.dim is None:
            return x.squeeze(0)
        if not self.folded:
            return (x.squeeze(self.dim + 1) if self.is_position else x).movedim(0, self.dim)
        return (x if self.dim == 0 else x.transpose(0, 1)).flatten(0, 1)

    def __str__(self) -> str:
        if self.dim is None:
            return "[B, ...]"
        if self.folded:
            return "[B * T, ...]" if self.dim else "[T * B, ...]"
        return {0: "[T, B, ...]", 1: "[B, T, ...]", -1: "[B, ..., T]"}.get(self.dim, f"time in dimension {self.dim}")


TIME_FIRST = TimeLayout(0)
SINGLE_STEP = TimeLayout(None)

Time = tuple[TimeLayout, int]
"""Where time is, and T."""
