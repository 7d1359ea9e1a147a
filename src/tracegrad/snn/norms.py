"""Batch normalisation for spiking networks."""

import math
from collections.abc import Callable
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage] - BatchNorms would be converted

from tracegrad.core.registry import Registry
from tracegrad.snn.batch_norm import BatchNormOf, moments
from tracegrad.snn.synchronisation import Unsynchronised, joint_group, joint_moments


class TDBatchNorm2d(_NormBase):
    """Threshold-dependent batch normalisation, tdBN (Zheng et al. 2021).

    y = gamma * (x - mu) / sqrt(var + eps) + beta with the statistics of each channel over time, batch and space;
    gamma starts at scale * threshold, so that currents start with the variance that neurons need.

    It has the attributes and the `state_dict` of `nn.BatchNorm2d`, but is not a subclass of it:
    `nn.SyncBatchNorm.convert_sync_batchnorm` would replace it by a norm of dimension 1, which over time is the batch.
    The conversion leaves it in place, and makes it take its statistics in training over all processes of the group, on
    CPUs as well.

    Args:
        channels: C.
        scale: 1 on a plain path, 1/sqrt(2) where two normalised currents meet in an addition.
        threshold: v_th of the neuron that the current drives.
    """

    def __init__(self, channels: int, scale: float = 1.0, threshold: float = 0.5) -> None:
        self.start = scale * threshold
        super().__init__(channels)
        self.sync = Unsynchronised(channels)

    def reset_parameters(self) -> None:
        """Statistics as new, gamma = scale * threshold, beta = 0."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.start)

    def forward(self, input: Tensor) -> Tensor:
        """Currents [T, B, C, H, W], or folded [T * B, C, H, W], to normalised ones.

        Raises:
            ValueError: currents of another shape; in training, one value per channel.
        """
        if input.dim() not in (4, 5) or input.shape[-3] != self.num_features:
            raise ValueError(
                f"currents must be [T, B, {self.num_features}, H, W] or folded [T * B, {self.num_features}, H, W], "
                f"not of shape {list(input.shape)}"
            )
        if input.dim() == 4:
            return self._normalise(input)
        if input.shape[:2] == (1, 1):
            # On CPUs PyTorch's gradient is wrong for a batch of one image whose stride over the batch is unusual, as
            # flatten leaves it (seen in 2.14): so take the pixels as the batch.
            pixels = input[0, 0].flatten(1).T[:, :, None, None]
            return self._normalise(pixels)[:, :, 0, 0].T.unflatten(1, input.shape[3:])[None, None]
        return self._normalise(input.flatten(0, 1)).unflatten(0, input.shape[:2])

    def _normalise(self, input: Tensor) -> Tensor:
        """[N, C, H, W] with the statistics of each channel over everything else."""
        group = joint_group(self.sync) if self.training else None
        if group is None:
            rate = self._next_rate() if self.training else 0.0
            return F.batch_norm(input, *self._running, self.weight, self.bias, self.training, rate, self.eps)
        mean, variance, count = joint_moments(input, group)
        self._track(mean, variance, count)
        scale, shift = BatchNormOf(self.weight, self.bias, mean, variance, self.eps, True).affine()
        return (input * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def of_this_batch(self, input: Tensor) -> BatchNormOf:
        """What `forward` would do to these currents; running statistics are updated as there.

        Args:
            input: currents [T, B, C, H, W] that `kernels.can_fuse`.
        """
        if not self.training:
            return BatchNormOf(self.weight, self.bias, *self._running, self.eps, False)
        mean, variance = moments(input)
        self._track(mean, variance, input.numel() // self.num_features)
        return BatchNormOf(self.weight, self.bias, mean, variance, self.eps, True)

    @property
    def is_plain(self) -> bool:
        """Whether `of_this_batch` may stand for the call: no hook listens, and no other process takes part."""
        listens = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
        return not listens and (not self.training or joint_group(self.sync) is None)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor | int) -> None:
        """Moves the running statistics towards a batch's; their variance is the population's."""
        rate = self._next_rate()
        for running, value in zip(self._running, (mean, variance * (count / (count - 1))), strict=True):
            running.lerp_(value.to(running.dtype), rate)

    def _next_rate(self) -> float:
        """Counts a batch; returns the weight of its statistics in the running ones."""
        count = cast(Tensor, self.num_batches_tracked).add_(1)
        return 1 / count.item() if self.momentum is None else self.momentum

    @property
    def _running(self) -> tuple[Tensor, Tensor]:
        return cast(Tensor, self.running_mean), cast(Tensor, self.running_var)


class TimeMeanBatchNorm2d(TDBatchNorm2d):
    """The norm of the authors' public code of Park et al. (2023): of the mean over time, repeated at every step.

    Every neuron gets a constant current. gamma starts at the threshold, whatever the path.

    Args:
        channels: C.
        scale: is ignored: gamma is not scaled. It is there because the other norms have it.
        threshold: v_th of the neuron that the current drives.
    """

    def __init__(self, channels: int, scale: float = 1.0, threshold: float = 0.5) -> None:
        super().__init__(channels, 1.0, threshold)

    def forward(self, input: Tensor) -> Tensor:
        """Currents [T, B, C, H, W] to normalised ones, the same at each step."""
        return super().forward(input.mean(0, keepdim=True)).expand_as(input)


class TEBatchNorm2d(TDBatchNorm2d):
    """Temporal effective batch normalisation, TEBN (Duan et al. 2022).

    y(t) = p(t) * (gamma * (x(t) - mu) / sqrt(var + eps) + beta) with the statistics of each channel over time, batch
    and space. p, one trained number per step, starts at 1.

    Args:
        channels: C.
        time_steps: T.
        scale: with `threshold`, what gamma starts at: scale * threshold, as in tdBN; 1 by default, as in its paper.
        threshold: v_th of the neuron that the current drives.

    Raises:
        ValueError: time_steps below 1; in a call, currents of another shape or T.
    """

    def __init__(self, channels: int, time_steps: int, scale: float = 1.0, threshold: float = 1.0) -> None:
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, not {time_steps}")
        super().__init__(channels, scale, threshold)
        self.step_scale = nn.Parameter(torch.ones(time_steps))

    def reset_parameters(self) -> None:
        """As tdBN's, and p = 1."""
        super().reset_parameters()
        if hasattr(self, "step_scale"):  # not yet in the constructor of the base
            nn.init.ones_(self.step_scale)

    def forward(self, input: Tensor) -> Tensor:
        """Currents [T, B, C, H, W] to normalised ones."""
        time_steps = len(self.step_scale)
        if input.dim() != 5 or len(input) != time_steps:
            raise ValueError(
                f"TEBN has a factor for each of T = {time_steps} steps: currents must be [{time_steps}, B, C, H, W], "
                f"not of shape {list(input.shape)}"
            )
        normalised = super().forward(input)
        return normalised * self.step_scale.to(normalised.dtype).reshape(-1, 1, 1, 1, 1)


class Norm(Protocol):
    """A factory of norms of currents [T, B, C, H, W]."""

    def __call__(self, channels: int, scale: float, threshold: float, time_steps: int) -> nn.Module:
        """A norm whose gamma starts at scale * threshold."""
        ...


def _for_any_time_steps(norm: Callable[[int, float, float], nn.Module]) -> Norm:
    return lambda channels, scale, threshold, time_steps: norm(channels, scale, threshold)


def _tebn(channels: int, scale: float, threshold: float, time_steps: int) -> nn.Module:
    return TEBatchNorm2d(channels, time_steps, scale, threshold)


NORMS: Registry[Norm] = Registry("norm")


def register_norm(name: str) -> Callable[[Norm], Norm]:
    """Decorator that makes a norm available to models and recipes by name, `norm: NAME`.

    It is called as norm(channels=C, scale=..., threshold=..., time_steps=T) and returns a module that takes currents
    [T, B, C, H, W].

    Raises:
        ValueError: the name is taken.
    """
    return lambda norm: NORMS.register(name, norm)


NORMS.register("tdbn", _for_any_time_steps(TDBatchNorm2d))
NORMS.register("time_mean", _for_any_time_steps(TimeMeanBatchNorm2d))
NORMS.register("tebn", _tebn)

RESIDUAL_GAIN = 1 / math.sqrt(2)
"""The scale of norms whose outputs meet in an addition."""
