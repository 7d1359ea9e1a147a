"""Currents, gradients and correlations as sums over packed spikes, for synapses that are convolutions of images.

A fully connected layer is one of images of one pixel, a 1-d convolution one of images of height 1.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tracegrad.core.equations.geometry import Geometry
from tracegrad.core.time_layout import TimeLayout
from tracegrad.events.choice import Mode, Way
from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.mixed_precision import current_type
from tracegrad.events.onto import NOTHING, Onto
from tracegrad.events.spikes import Spikes, both_pay, correlate_ends


class Reading(NamedTuple):
    """What stands at one end of a synapse.

    Attributes:
        value: the signal, [N, ...].
        spikes: the same, packed, if it is spikes and worth it.
    """

    value: Tensor
    spikes: Spikes | None = None


def pack(geometry: Geometry, x: Tensor, weight: Tensor, mode: Mode) -> Spikes | None:
    """Packs what stands at either end of a synapse; None if it is no spikes, or the dense way serves the synapse."""
    if geometry.window(x.dim()) is None or torch.is_grad_enabled():  # the kernels have no graph
        return None
    return Spikes.read(_images(x, weight), mode, current_type(x), _kernel(weight).shape)


def current(
    geometry: Geometry, spikes: Spikes, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The current of `x`, which is packed as `spikes`; None where the dense way is faster."""
    window = geometry.window(x.dim())
    images = None if window is None else spikes.current(_kernel(weight), bias, window, dtype)
    return None if images is None else _ends(images, x, weight)


def spiking_current(
    geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, mode: Mode
) -> tuple[Tensor, Way | None]:
    """The current of `x`, differentiable, and the way that it took, as far as that is known: not in compiled graphs."""
    window = geometry.window(x.dim())
    if torch.compiler.is_compiling() and window is not None and x.device.type == "cpu":
        return _ends(convolve_spikes(_images(x, weight), _kernel(weight), bias, window), x, weight), None
    with torch.no_grad():
        spikes = pack(geometry, x, weight, mode)
    if window is None or spikes is None or not spikes.pays(_kernel(weight).shape, window, current_type(x)):
        rate = None if spikes is None else spikes.rate
        return geometry.current(x, weight, bias), Way(rate, False)
    images = convolve_spikes(_images(x, weight), _kernel(weight), bias, window, spikes)
    return _ends(images, x, weight), Way(spikes.rate, True)


def correlate(geometry: Geometry, pre: Reading, post: Reading, weight: Tensor, onto: Onto = NOTHING) -> Tensor:
    """`Geometry.correlate`, over the spikes of one end where that is faster; in float32 at least then."""
    found = correlate_spikes(geometry, pre, post, weight, onto)
    return onto.add(geometry.correlate(pre.value, post.value, weight)) if found is None else found


def correlate_spikes(
    geometry: Geometry, pre: Reading, post: Reading, weight: Tensor, onto: Onto = NOTHING
) -> Tensor | None:
    """`correlate`, or None where the dense way is faster."""
    window, spikes = geometry.window(pre.value.dim()), (pre.spikes, post.spikes)
    if window is None or spikes == (None, None):
        return None
    if onto.previous is not None:
        onto = onto._replace(previous=_kernel(onto.previous))
    images = _images(pre.value, weight), _images(post.value, weight)
    found = correlate_ends(*images, spikes, _kernel(weight).shape, window, onto)
    return None if found is None else found.reshape(weight.shape)


def two_sums_pay(geometry: Geometry, pre: Spikes | None, post: Spikes | None, weight: Tensor) -> bool:
    """Whether two sums, one over the spikes of each end, take less than one dense correlation."""
    window = geometry.window(max(weight.dim(), 2))
    if pre is None or post is None or window is None:
        return False
    return both_pay(pre, post, _kernel(weight).shape, window)


def in_steps(spikes: Spikes, x: Tensor, weight: Tensor, layout: TimeLayout, time_steps: int) -> Spikes:
    """What packs the input `x`, in the order of `layout.split(x, time_steps).flatten(0, 1)`."""
    words = layout.split(_ends(spikes.bits.movedim(-1, 1), x, weight), time_steps).flatten(0, 1)
    return replace(spikes, bits=_images(words, weight).movedim(1, -1).contiguous())


def _images(x: Tensor, weight: Tensor) -> Tensor:
    """[N, channels, H, W]; a view where that is possible."""
    if weight.dim() == 2:
        return x.flatten(0, -2)[:, :, None, None]
    return x.unsqueeze(2) if weight.dim() == 3 else x


def _ends(images: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_images`, where `pre` stands at the pre-synaptic end."""
    if weight.dim() == 2:
        return images[:, :, 0, 0].unflatten(0, pre.shape[:-1])
    return images.squeeze(2) if weight.dim() == 3 else images


def _kernel(weight: Tensor) -> Tensor:
    """[outputs, channels, kernel height, kernel width]."""
    return weight.reshape(*weight.shape[:2], *(1,) * (4 - weight.dim()), *weight.shape[2:])
