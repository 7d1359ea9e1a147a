"""Statistics of a norm over the batches of several processes, on any device and backend."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - what is converted

from tracegrad.core.equations.trace import at_least_float32


class Unsynchronised(_BatchNorm):
    """A child that marks its parent until `nn.SyncBatchNorm.convert_sync_batchnorm` replaces it by a SyncBatchNorm.

    It has neither parameters nor buffers, and is never called.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False, track_running_stats=False)

    def extra_repr(self) -> str:
        """Nothing: it normalises nothing."""
        return ""


def joint_group(mark: nn.Module) -> dist.ProcessGroup | None:
    """The processes whose batches are one: those that a conversion put in place of `mark`, if there are several."""
    if not (isinstance(mark, nn.SyncBatchNorm) and dist.is_available() and dist.is_initialized()):
        return None
    group = mark.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def joint_moments(x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (of the sample) of each channel over the batches of a group, and the count of values.

    With n, m and v the count, mean and variance of each process:

        mean     = sum n m / sum n
        variance = sum n (v + (m - mean)^2) / sum n

    Gradients pass to the currents of all processes.

    Args:
        x: [N, C, H, W]; N may differ among the processes.
        group: every process of it calls this function.
    """
    variance, mean = torch.var_mean(x.to(at_least_float32(x)), (0, 2, 3), correction=0)
    count = mean.new_tensor([x.numel() // x.shape[1]])
    sums = _sum_over(group, torch.cat([count * mean, count]))
    joint_mean, joint_count = sums[:-1] / sums[-1], sums[-1]
    squares = _sum_over(group, count * (variance + (mean - joint_mean).square()))
    return joint_mean, squares / joint_count, joint_count.detach()


class _SumOver(torch.autograd.Function):
    """Each process's loss depends on the sum, so that the gradient of a summand is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, x: Tensor) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, _sum_over(ctx.group, grad_outputs[0])


def _sum_over(group: dist.ProcessGroup, x: Tensor) -> Tensor:
    return _SumOver.apply(group, x)  # pyright: ignore[reportReturnType]
