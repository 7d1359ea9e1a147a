"""Neurons on a sum of currents, each through its norm: one pass over memory where that is worth it."""

from torch import Tensor, nn

from tracegrad.core.neurons import reads_only_spikes
from tracegrad.snn.kernels import NormedCurrent, SummedCurrents, can_fuse
from tracegrad.snn.neurons import IF, LIF
from tracegrad.snn.norms import TDBatchNorm2d, TEBatchNorm2d


def fire_on(neuron: nn.Module, *currents: tuple[Tensor, nn.Module | None], time_steps: int | None = None) -> Tensor:
    """The spikes of neuron(norm_1(z_1) + norm_2(z_2) + ...).

    The norms' outputs and their sum are never stored where the neuron is one of ours, the norms are tdBN, no hook reads
    what would be left out, and the layer is large enough.

    Args:
        neuron: takes currents [T, B, ...], all steps in one call.
        currents: each z, [T, B, C, H, W] or [1, B, C, H, W] for the same at every step, with its norm or None.
        time_steps: T where a current is the same at every step.

    Returns:
        Spikes [T, B, C, H, W].
    """
    steps = time_steps or currents[0][0].shape[0]
    if _can_skip(neuron, [norm for _, norm in currents]) and can_fuse([z for z, _ in currents], steps):
        normed = [
            NormedCurrent(z, norm.of_this_batch(z) if isinstance(norm, TDBatchNorm2d) else None) for z, norm in currents
        ]
        return neuron(SummedCurrents(normed, steps))
    return neuron(add_currents(*currents, time_steps=steps))


def add_currents(*currents: tuple[Tensor, nn.Module | None], time_steps: int | None = None) -> Tensor:
    """norm_1(z_1) + norm_2(z_2) + ..., [T, B, C, H, W]; the arguments are those of `fire_on`."""
    steps = time_steps or currents[0][0].shape[0]
    total, *others = (_normalised(z, norm, steps) for z, norm in currents)
    for current in others:
        total = total + current
    return total if total.shape[0] == steps else total.expand(steps, *total.shape[1:])


def _normalised(z: Tensor, norm: nn.Module | None, time_steps: int) -> Tensor:
    if norm is None:
        return z
    # TEBN turns equal steps into different ones; for the other norms one of the equal steps is enough.
    return norm(z.expand(time_steps, *z.shape[1:]) if isinstance(norm, TEBatchNorm2d) and len(z) == 1 else z)


def _can_skip(neuron: nn.Module, norms: list[nn.Module | None]) -> bool:
    """Whether nothing reads the norms' outputs and the neuron's input."""
    return (
        type(neuron) in (LIF, IF)
        and not (isinstance(neuron.initial, Tensor) and neuron.initial.numel() > 1)
        and reads_only_spikes(neuron)
        and all(norm is None or (type(norm) is TDBatchNorm2d and norm.is_plain) for norm in norms)
    )
