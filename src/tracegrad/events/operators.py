"""The operators on packed spikes: the compiled kernels where there are any, for float32 and bfloat16."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from tracegrad.events.library import library, machine_instruction_set
from tracegrad.events.onto import NOTHING, Onto
from tracegrad.events.window import Window, turned_round

CHANNELS_LAST = torch.channels_last


def pack(x: Tensor, instruction_set: str | None = None) -> tuple[Tensor, int] | None:
    """As `twins.pack`, of bfloat16 or float32."""
    kernels = library(instruction_set or machine_instruction_set())
    if kernels is None or not x.numel():
        return None
    if not x.is_contiguous():
        x = x.contiguous(memory_format=CHANNELS_LAST)
    images, channels, height, width = x.shape
    bits = torch.empty(images, height, width, (channels + 63) // 64, dtype=torch.int64)
    last = x.is_contiguous(memory_format=CHANNELS_LAST)
    sizes = images, channels, height * width
    half, threads = x.dtype == torch.bfloat16, torch.get_num_threads()
    count = kernels.tracegrad_pack(x.data_ptr(), half, last, *sizes, bits.data_ptr(), threads)
    return None if count < 0 else (bits, count)


def unpack(bits: Tensor, channels: int, dtype: torch.dtype, instruction_set: str | None = None) -> Tensor:
    """As `twins.unpack`, to bfloat16 or float32."""
    kernels = library(instruction_set or machine_instruction_set())
    assert kernels is not None  # noqa: S101 - they have packed the bits
    images, height, width, _ = bits.shape
    x = torch.empty(images, channels, height, width, dtype=dtype, memory_format=CHANNELS_LAST)
    positions, half, threads = images * height * width, dtype == torch.bfloat16, torch.get_num_threads()
    kernels.tracegrad_unpack(bits.data_ptr(), half, positions, channels, x.data_ptr(), threads)
    return x


def convolve(
    bits: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    dtype: torch.dtype,
    instruction_set: str | None = None,
) -> Tensor | None:
    """As `twins.convolve`, channels last in memory; None where a weight is infinite or not a number.

    A current in bfloat16 sums weights that are rounded to bfloat16, in float32; one in float32 sums float32.
    """
    kernels = library(instruction_set or machine_instruction_set())
    assert kernels is not None  # noqa: S101 - they have packed the bits
    size = window.output_size(_images(bits, weight.shape[1]), weight.shape)
    current = torch.empty(size, dtype=dtype, memory_format=CHANNELS_LAST)
    half, rounded = dtype == torch.bfloat16, weight.dtype == torch.bfloat16
    weight, bias = weight.detach().float(), None if bias is None else bias.detach().float().contiguous()
    failed = kernels.tracegrad_convolve(
        _geometry(bits, weight.shape, size, window),
        bits.data_ptr(),
        weight.data_ptr(),
        _numbers(weight.stride()),
        not half,
        rounded,
        0 if bias is None else bias.data_ptr(),
        current.data_ptr(),
        half,
        torch.get_num_threads(),
    )
    return None if failed else current


def correlate(
    bits: Tensor,
    post: Tensor,
    size: torch.Size,
    window: Window,
    onto: Onto = NOTHING,
    turned: bool = False,
    instruction_set: str | None = None,
) -> Tensor | None:
    """As `twins.correlate`, in float32, channels last in memory; None where `post` is infinite or not a number."""
    kernels = library(instruction_set or machine_instruction_set())
    assert kernels is not None  # noqa: S101 - they have packed the bits
    post = post.detach().contiguous(memory_format=CHANNELS_LAST)
    result = torch.empty(turned_round(size) if turned else size, memory_format=CHANNELS_LAST)
    previous = onto.previous
    if previous is not None and (previous.dtype != result.dtype or previous.stride() != result.stride()):
        previous = torch.empty_like(result).copy_(previous)
    strides, first = list(result.stride()), 0
    if turned:  # the last kernel position comes first
        first = 4 * sum((count - 1) * stride for count, stride in zip(size[2:], strides[2:], strict=True))
        strides = [strides[1], strides[0], -strides[2], -strides[3]]
    failed = kernels.tracegrad_correlate(
        _geometry(bits, size, post.shape, window),
        bits.data_ptr(),
        post.data_ptr(),
        post.dtype == torch.bfloat16,
        result.data_ptr() + first,
        _numbers(strides),
        onto.scale,
        None if previous is None else previous.data_ptr() + first,
        onto.factor,
        torch.get_num_threads(),
    )
    return None if failed else result


def _images(bits: Tensor, channels: int) -> torch.Size:
    return torch.Size((bits.shape[0], channels, bits.shape[1], bits.shape[2]))


def _geometry(bits: Tensor, weight: torch.Size, current: Sequence[int], window: Window) -> ctypes.Array[ctypes.c_int64]:
    """`Geometry` of kernels.cpp."""
    axes = zip(bits.shape[1:3], weight[2:], window.stride, window.padding, current[2:], strict=True)
    return _numbers([bits.shape[0], weight[1], weight[0], *(number for axis in axes for number in axis)])


def _numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
