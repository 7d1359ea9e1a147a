"""Batch normalisation for spiking networks."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from tracegrad.core.registry import Registry


class TDBatchNorm2d(nn.BatchNorm2d):
    """Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021).

    y = gamma * (x - mu) / sqrt(var + eps) + beta with the statistics of each channel over time, batch and space;
    gamma starts at scale * threshold, so that currents start with the variance that neurons need.

    Args:
        channels: C.
        scale: 1 on a plain path, 1/sqrt(2) where two normalised currents meet in an addition.
        threshold: v_th of the neuron that the current drives.
    """

    def __init__(self, channels: int, scale: float = 1.0, threshold: float = 0.5) -> None:
        self.start = scale * threshold
        super().__init__(channels)

    def reset_parameters(self) -> None:
        """Statistics as new, gamma = scale * threshold, beta = 0."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.start)

    def forward(self, input: Tensor) -> Tensor:
        """Currents [T, B, C, H, W], or folded [T * B, C, H, W], to normalised ones."""
        if input.dim() != 5:
            return super().forward(input)
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])


class TimeMeanBatchNorm2d(TDBatchNorm2d):
    """The norm of the authors' public code of Park et al. (2023): of the mean over time, repeated at every step.

    Every neuron gets a constant current. gamma starts at the threshold, whatever the path.

    Args:
        channels: C.
        scale: taken for the sake of one signature, and not used.
        threshold: v_th of the neuron that the current drives.
    """

    def __init__(self, channels: int, scale: float = 1.0, threshold: float = 0.5) -> None:
        super().__init__(channels, 1.0, threshold)

    def forward(self, input: Tensor) -> Tensor:
        """Currents [T, B, C, H, W] to normalised ones, the same at each step."""
        return super().forward(input.mean(0, keepdim=True)).expand_as(input)


Norm = Callable[[int, float, float], nn.Module]
"""(channels, scale, threshold) -> a module on currents [T, B, C, H, W]."""

NORMS: Registry[Norm] = Registry("norm")
NORMS.register("tdbn", TDBatchNorm2d)
NORMS.register("time_mean", TimeMeanBatchNorm2d)

MEETING = 1 / math.sqrt(2)
"""The scale of norms whose outputs meet in an addition."""
