"""The currents of convolutions and linear layers on spikes over time."""

from torch import Tensor, nn

from tracegrad.core.equations.geometry import LinearGeometry
from tracegrad.core.equations.spike_sums import spiking_current
from tracegrad.core.synapses import has_gate
from tracegrad.core.torch_internals import backward_hooks, forward_hooks, forward_pre_hooks
from tracegrad.events.choice import mode
from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.mixed_precision import current_type
from tracegrad.events.spikes import Spikes
from tracegrad.events.window import Window


def currents_of(x: Tensor, *layers: nn.Conv2d) -> list[Tensor]:
    """The currents [T, B, C', H', W'] of frames [T, B, C, H, W]: each layer on all steps, time folded into the batch.

    Spikes are packed once, and convolved by the event kernels where these pay, unless a hook or a gate wants to see the
    call.
    """
    images = x.flatten(0, 1)
    kernels = [layer.weight.shape for layer in layers if _is_plain(layer)]
    spikes = Spikes.read(images, mode(), current_type(images), *kernels) if kernels else None
    currents = [_current(layer, images, spikes) for layer in layers]
    return [current.unflatten(0, x.shape[:2]) for current in currents]


def linear_current(x: Tensor, layer: nn.Linear) -> Tensor:
    """The current [..., outputs] of spikes [..., inputs], by the event kernels where these pay, as `currents_of`."""
    if not _is_unwatched(layer, nn.Linear):
        return layer(x)
    current, _ = spiking_current(LinearGeometry(), x, layer.weight, layer.bias, mode())
    return current


def _current(layer: nn.Conv2d, images: Tensor, spikes: Spikes | None) -> Tensor:
    if not _is_plain(layer) or isinstance(layer.padding, str):
        return layer(images)
    window = Window(_pair(layer.stride), _pair(layer.padding))
    return convolve_spikes(images, layer.weight, layer.bias, window, spikes)


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether a call of the layer is its convolution, and nothing else."""
    simple = layer.padding_mode == "zeros" and layer.groups == 1 and set(layer.dilation) == {1}
    return simple and _is_unwatched(layer, nn.Conv2d)


def _is_unwatched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is of this very kind, and no hook or gate wants to see its call."""
    listens = forward_pre_hooks(layer) or forward_hooks(layer) or backward_hooks(layer)
    return type(layer) is kind and not listens and not has_gate(layer)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]
