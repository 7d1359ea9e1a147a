"""What was declared of one neuron, and what errors about it say."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tracegrad.core.neurons import Convention
from tracegrad.core.time_layout import SINGLE_STEP, TIME_FIRST, Time, TimeLayout


@dataclass(frozen=True)
class Declaration:
    """A neuron and how it was registered.

    Attributes:
        name: of the neuron in its model.
        neuron: it, or a copy of it.
        convention: as it was registered.
        current: an example of its input.
    """

    name: str
    neuron: nn.Module
    convention: Convention
    current: Tensor

    def __str__(self) -> str:
        return f"neuron {self.name} (class {type(self.neuron).__name__})"

    @property
    def said(self) -> str:
        """Where time was declared to be, in words."""
        if self.convention.step(self.neuron):
            return "one step a call, [B, ...] (step=True)"
        if self.convention.folded is None:
            return str(TimeLayout(self.convention.time_dim))
        layout, time_steps = self.convention.time_of(self.neuron, self.current)
        return f"{layout} with T = {time_steps}"

    def time_in(self, x: Tensor) -> Time | None:
        """Where time was declared to be in `x`, and T; None if `x` has no such dimension, or T does not divide it."""
        if self.convention.step(self.neuron):
            return SINGLE_STEP, 1
        if not -x.dim() <= self.convention.time_dim < x.dim():
            return None
        layout, time_steps = self.convention.time_of(self.neuron, x)
        if not layout.folded:
            return TimeLayout(self.convention.time_dim % x.dim()), time_steps
        if time_steps < 1 or len(x) % time_steps:
            return None
        return TIME_FIRST if time_steps == len(x) else layout, time_steps

    def check_input(self) -> None:
        """Checks that time can be where it was declared to be.

        Raises:
            ValueError: the input has no such dimension, or T does not divide it.
        """
        if self.time_in(self.current) is None:
            raise ValueError(
                f"{self} is declared as {self.said}, but its input has the shape {list(self.current.shape)}: "
                "no such time is in it"
            )

    def elsewhere(self, time: Time) -> ValueError:
        """The error that time was found elsewhere."""
        layout, time_steps = time
        if layout.folded:
            where = f"dimension 0, {layout} with T = {time_steps}"
            right = self.registration(folded=time_steps, time_dim=layout.dim)
        else:
            last = layout.dim == self.current.dim() - 1 != 1
            where = f"dimension {layout.dim}{', the last' if last else ''}"
            right = self.registration(time_dim=-1 if last else layout.dim)
        return ValueError(
            f"{self} is declared as {self.said}, but its outputs depend on what came before along {where}, time: "
            f"declare {right}"
        )

    def as_graded(self) -> str:
        """The call that registers it as it was, with graded spikes."""
        if self.convention.step(self.neuron):
            return self.registration(step=True, graded=True)
        folded = None if self.convention.folded is None else self.convention.time_of(self.neuron, self.current)[1]
        return self.registration(folded=folded, time_dim=self.convention.time_dim or None, graded=True)

    def registration(self, **options: Any) -> str:
        """The call that registers it with other options for where time is; what else was declared stays."""
        convention = self.convention
        kept = {
            "state": convention.state,
            "reset": None if convention.reset == "its reset" else convention.reset,
            "graded": convention.graded or None,
        }
        said = ", ".join(f"{key}={value!r}" for key, value in (kept | options).items() if value is not None)
        return f"tg.register_neuron({type(self.neuron).__name__}, {said})"
