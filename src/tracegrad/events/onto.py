"""What a correlation is added to."""

from typing import NamedTuple

from torch import Tensor


class Onto(NamedTuple):
    """Of a correlation R: scale * R + factor * previous.

    Attributes:
        scale: of R.
        factor: of `previous`.
        previous: shaped like R; None for 0.
    """

    scale: float = 1.0
    factor: float = 0.0
    previous: Tensor | None = None

    def add(self, correlation: Tensor) -> Tensor:
        """The sum, of a correlation that is known already."""
        scaled = correlation if self.scale == 1 else self.scale * correlation
        return scaled if self.previous is None else scaled + self.factor * self.previous


NOTHING = Onto()
