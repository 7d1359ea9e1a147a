"""One top-level forward pass of a model with scaling attached, and the feedback on its way through it."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tracegrad.core.equations.masking import StepMask
from tracegrad.core.equations.signals import SignalReader
from tracegrad.core.pairing.graph import Use
from tracegrad.core.pairing.pairs import Pairing
from tracegrad.core.time_layout import TimeLayout


class ForwardPass:
    """What one forward pass knows so far; dropped when it ends.

    Args:
        pairing: of the model.
        inputs: what the model was called with.
        mask: which steps of which examples count.
    """

    def __init__(self, pairing: Pairing, inputs: Any, mask: StepMask | None) -> None:
        self.pairing = pairing
        self.mask = mask
        self.with_gradients = torch.is_grad_enabled()
        self.calls: dict[str, int] = {}
        self.time_steps: dict[str, int] = {}  # of the neurons that fired
        self.feedback: dict[Use, Tensor] = {}
        self.reader = SignalReader()
        self._inputs = inputs

    def next_use(self, name: str) -> Use:
        """Counts a call of a module.

        Raises:
            ValueError: more calls than the example forward pass made.
        """
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        may_recur = name in self.pairing.recurrences or name in self.pairing.stepping
        if not may_recur and call >= self.pairing.calls.get(name, 0):
            raise ValueError(
                f"{name} is called more often ({call + 1} times) than in attach's example forward pass "
                f"({self.pairing.calls.get(name, 0)} times); attach with an example that takes the same path"
            )
        return name, call

    def time_of(self, use: Use, x: Tensor) -> tuple[TimeLayout, int]:
        """Where time is in the input `x` of a use of a synapse, and T.

        Raises:
            ValueError: dimension 0 does not hold T steps.
        """
        layout = self.pairing.layouts[use]
        time_steps = self._steps_before(use)
        if time_steps is None:
            time_steps = layout.steps_in(x)
        if layout.dim is None or time_steps is None or (layout.dim and not layout.folded):
            return layout, time_steps or 1
        if x.shape[0] % time_steps:
            raise ValueError(
                f"the input of {use[0]} has shape {list(x.shape)}; its first dimension must be T = "
                f"{time_steps}, or T * B folded"
            )
        # In an example of one input [T, N, ...] may have been [T, B, ...] or [T * B, ...]: T tells.
        return (layout if x.shape[0] == time_steps or layout.folded else TimeLayout(0, folded=True)), time_steps

    def _steps_before(self, use: Use) -> int | None:
        count = self.pairing.step_counts.get(use)
        if count is None or count.fixed is not None:
            return count and count.fixed
        if count.data is not None:
            index, dim = count.data
            tensors = [x for x in tree_leaves(self._inputs) if isinstance(x, Tensor) and x.is_floating_point()]
            return tensors[index].shape[dim]
        fired = self.calls if count.neuron in self.pairing.stepping else self.time_steps
        return fired.get(count.neuron or "")
