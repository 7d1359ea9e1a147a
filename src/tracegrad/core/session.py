"""One top-level forward pass of a model with scaling attached, and the tokens on their way through it."""

import torch
from torch import Tensor

from tracegrad.core.graph import Use
from tracegrad.core.pairing import Pairing
from tracegrad.core.signals import SignalReader


class Session:
    """What one forward pass knows so far; dropped when it ends.

    Args:
        pairing: of the model.
        time_steps: T where the input tells it, else None until the first neuron fires.
    """

    def __init__(self, pairing: Pairing, time_steps: int | None) -> None:
        self.pairing = pairing
        self.time_steps = time_steps
        self.with_gradients = torch.is_grad_enabled()
        self.calls: dict[str, int] = {}
        self.tokens: dict[Use, Tensor] = {}
        self.reader = SignalReader()

    def next_use(self, name: str) -> Use:
        """Counts a call of a module.

        Raises:
            ValueError: more calls than the example forward pass made.
        """
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        may_recur = name in self.pairing.period or name in self.pairing.stepping
        if not may_recur and call >= self.pairing.calls.get(name, 0):
            raise ValueError(
                f"{name} is called more often ({call + 1} times) than in attach's example forward pass "
                f"({self.pairing.calls.get(name, 0)} times); attach with an example that takes the same path"
            )
        return name, call

    def fire(self, name: str, spikes: Tensor) -> None:
        """Notes T from a neuron's spikes [T, B, ...].

        Raises:
            ValueError: another T than before in this forward pass.
        """
        time_steps = spikes.shape[0]
        if self.time_steps is not None and self.time_steps != time_steps:
            raise ValueError(
                f"neuron {name} fired over T = {time_steps} steps, but T = {self.time_steps} earlier in the same "
                "forward pass; T must not change within one call"
            )
        self.time_steps = time_steps
