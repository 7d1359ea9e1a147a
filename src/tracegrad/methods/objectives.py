"""Objectives: what is read from the outputs at every step, and the loss that training lowers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.registry import Registry

Readout = Callable[[Tensor], Tensor]
"""Outputs [T, B, K] -> scores [B, K]."""


def mean_over_time(outputs: Tensor) -> Tensor:
    """mean_t o(t), what tdBN (Zheng et al. 2021) reads."""
    return outputs.mean(0)


def last_membrane(outputs: Tensor, leak: float = 0.9) -> Tensor:
    """u(T-1) with u(t) = leak * u(t-1) + o(t): a readout neuron that never fires, what Park et al. (2023) read."""
    membrane = outputs[0]
    for output in outputs[1:]:
        membrane = leak * membrane + output
    return membrane


@dataclass(frozen=True)
class CrossEntropy:
    """The cross entropy of what `readout` makes of the outputs.

    Args:
        readout: outputs [T, B, K] -> scores [B, K]; predictions are read by it too.
    """

    readout: Readout

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss, averaged over the batch.

        Args:
            outputs: [T, B, K].
            target: classes [B], or probabilities [B, K].

        Raises:
            ValueError: shapes that do not belong together.
        """
        if outputs.dim() != 3 or target.shape not in (outputs.shape[1:2], outputs.shape[1:]):
            raise ValueError(
                f"outputs must be [T, B, K] and the target [B] or [B, K], "
                f"not of shapes {list(outputs.shape)} and {list(target.shape)}"
            )
        return F.cross_entropy(self.readout(outputs), target)


mean_cross_entropy = CrossEntropy(mean_over_time)
membrane_cross_entropy = CrossEntropy(last_membrane)

OBJECTIVES: Registry[CrossEntropy] = Registry("objective")
OBJECTIVES.register("mean_cross_entropy", mean_cross_entropy)
OBJECTIVES.register("membrane_cross_entropy", membrane_cross_entropy)
