"""Which of PyTorch's layers are synapses, and the geometry of each."""

from torch import nn

from tracegrad.core.equations.convolutions import ConvolutionGeometry, TransposedConvolutionGeometry
from tracegrad.core.equations.geometry import (
    Geometry,
    LinearGeometry,
)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_synapse(module: nn.Module) -> bool:
    """Whether `module` is a layer that `geometry_of` knows."""
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))


def geometry_of(synapse: nn.Module) -> Geometry:
    """The geometry of a layer; of a transposed convolution, that of a call without `output_size`.

    Raises:
        TypeError: not an nn.Linear, nn.Conv1d to nn.Conv3d or nn.ConvTranspose1d to nn.ConvTranspose3d.
        ValueError: a convolution whose padding is not zeros.
    """
    if isinstance(synapse, nn.Linear):
        return LinearGeometry()
    if not isinstance(synapse, (*_CONVOLUTIONS, *_TRANSPOSED)):
        name = type(synapse).__name__
        raise TypeError(f"a synapse is an nn.Linear, nn.Conv1d to 3d or nn.ConvTranspose1d to 3d, not {name}")
    if synapse.padding_mode != "zeros":
        raise ValueError(f"padding_mode={synapse.padding_mode!r} is not supported; use padding_mode='zeros'")
    padding, behind = padding_sizes(synapse.padding, synapse.kernel_size, synapse.dilation)
    sizes = synapse.stride, padding, synapse.dilation, synapse.groups
    if isinstance(synapse, _TRANSPOSED):
        return TransposedConvolutionGeometry(*sizes, synapse.output_padding)
    return ConvolutionGeometry(*sizes, behind)


def padding_sizes(
    padding: tuple[int, ...] | str, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a convolution's `padding` (numbers, "same" or "valid") adds at both sides, and behind them in addition."""
    none = (0,) * len(kernel)
    if not isinstance(padding, str):
        return padding, none
    if padding == "valid":
        return none, none
    totals = [reach * (size - 1) for reach, size in zip(dilation, kernel, strict=True)]
    return tuple(total // 2 for total in totals), tuple(total % 2 for total in totals)


def has_equal_ends(synapse: nn.Module) -> bool:
    """Whether the synapse's output has the shape of its input."""
    if isinstance(synapse, nn.Linear):
        return synapse.in_features == synapse.out_features
    if not isinstance(synapse, (*_CONVOLUTIONS, *_TRANSPOSED)):
        return False
    padding, extra = padding_sizes(synapse.padding, synapse.kernel_size, synapse.dilation)
    if isinstance(synapse, _TRANSPOSED):
        extra = tuple(-size for size in synapse.output_padding)
    sizes = zip(synapse.kernel_size, synapse.stride, padding, extra, synapse.dilation, strict=True)
    keeps_size = all(s == 1 and 2 * pad + more == reach * (k - 1) for k, s, pad, more, reach in sizes)
    return keeps_size and synapse.in_channels == synapse.out_channels
