"""Alpha, the interpolation coefficient of Eq. 7, and how it changes over a training."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

Course = Literal["constant", "warmup", "cosine"]


def checked_alpha(alpha: object) -> float:
    """Alpha as it is; raises TypeError unless it is a number, ValueError unless that is in [0, 1]."""
    if not isinstance(alpha, Real):
        raise TypeError(f"alpha must be a number in [0, 1], not {alpha!r}")
    number = float(alpha)
    if not 0 <= number <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    return number


@dataclass(frozen=True)
class AlphaSchedule:
    """Alpha at each step of a training: a function of the step alone, so that a resumed training goes on to the bit.

    Set it once per step of the optimiser: `attachment.alpha = schedule(step)`.

    - "constant": alpha;
    - "warmup": alpha * min(1, step / steps), a line from 0;
    - "cosine": alpha * (1 + cos(pi * min(1, step / steps))) / 2, half a cosine down to 0.

    Args:
        course: how alpha changes.
        alpha: the largest, in [0, 1].
        steps: of the optimiser, after which it no longer changes.

    Raises:
        TypeError: alpha is no number.
        ValueError: alpha outside [0, 1], another course, or no step.
    """

    course: Course
    alpha: float
    steps: int = 1

    def __post_init__(self) -> None:
        checked_alpha(self.alpha)
        if self.course not in get_args(Course):
            known = ", ".join(map(repr, get_args(Course)))
            raise ValueError(f"unknown course {self.course!r} of alpha; the known ones are {known}")
        if self.steps < 1:
            raise ValueError(f"alpha changes over 1 step or more, not {self.steps}")

    def __call__(self, step: int) -> float:
        """Alpha at a step, counted from 0."""
        share = min(1.0, step / self.steps)
        if self.course == "warmup":
            return self.alpha * share
        return self.alpha * (1 + math.cos(math.pi * share)) / 2 if self.course == "cosine" else self.alpha
