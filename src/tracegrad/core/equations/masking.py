"""Which steps of which examples count in a relation: sequences of different lengths, padded to one."""

from dataclasses import dataclass

from torch import Tensor

from tracegrad.core.equations.relation import TimeMode


@dataclass(frozen=True)
class StepMask:
    """Where a spike counts: [T, B], or [B] for all steps of an example; a masked one is 0 in Eq. 5.

    Masked products are left out of R, "final" takes each example's last step that counts, and "mean" divides each
    example by the number of its steps that count: a padded batch has the relation that the sequences have as they are.
    """

    counted: Tensor

    def check(self, time_steps: int, examples: int, at_once: bool) -> None:
        """Raises ValueError unless it has B = `examples` and T = `time_steps`, or more where steps are to come."""
        rows = time_steps if self.counted.dim() == 1 else len(self.counted)
        if self.counted.shape[-1] == examples and (rows == time_steps or (rows > time_steps and not at_once)):
            return
        raise ValueError(
            f"the mask has shape {list(self.counted.shape)}, but {time_steps} steps of {examples} examples pass: "
            f"it must be [T, {examples}] with T = {time_steps}, or [{examples}]"
        )

    def of_steps(self, first: int, steps: int, examples: int) -> Tensor:
        """The mask of some steps, [steps or 1, examples]."""
        counted = self.counted[None] if self.counted.dim() == 1 else self.counted[first : first + steps]
        return counted[:, :examples]

    def spikes(self, spikes: Tensor, first: int) -> Tensor:
        """Spikes [steps, N, ...], from step `first` on, without those that are masked."""
        counted = self.of_steps(first, len(spikes), spikes.shape[1])
        return spikes * counted.reshape(*counted.shape, *(1 for _ in spikes.shape[2:])).to(spikes)

    def examples(self, examples: int) -> Tensor | None:
        """Which examples count, [examples]; None where a mask is one of steps."""
        return self.counted[:examples] if self.counted.dim() == 1 else None

    def steps(self, examples: int) -> Tensor | None:
        """Which steps count, [T, examples]; None where whole examples are masked: their spikes are 0."""
        return None if self.counted.dim() == 1 else self.counted[:, :examples]

    def weights(self, time: TimeMode, first: int, steps: int, examples: int) -> Tensor | None:
        """Of each step and example in R, [steps, examples]; None if whole examples are masked: their spikes are 0."""
        if self.counted.dim() == 1:
            return None
        mask = self.counted[:, :examples].double()
        if time == "mean":
            mask = mask / mask.sum(0).clamp(min=1)
        elif time == "final":
            mask = mask * (mask.flip(0).cumsum(0).flip(0) == 1)
        return mask[first : first + steps]
