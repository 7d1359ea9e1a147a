"""Convolutions of random shapes, rates and layouts."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tracegrad.events.library import INSTRUCTION_SETS, machine_instruction_set
from tracegrad.events.window import Window

AVAILABLE = [
    name
    for name in list(INSTRUCTION_SETS)[list(INSTRUCTION_SETS).index(machine_instruction_set()) :]
    if name != "amx_bf16"  # whose kernels are those of avx512_bf16
]
"""The instruction sets of kernels that this machine can run."""


@dataclass(frozen=True)
class Case:
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    post: Tensor
    window: Window


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> Case:
    """Spikes, weights and gradients; sizes are no multiples of anything."""
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(*(st.integers(0, size) for size in kernel)))
    height, width = (draw(st.integers(max(1, k - 2 * p), 19)) for k, p in zip(kernel, padding, strict=True))
    images, channels = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 8, 16, 32, 40, 64, 65, 130]))
    outputs = draw(st.sampled_from([1, 3, 8, 16, 17, 32, 33, 64, 100, 129]))
    rate = draw(st.sampled_from([0.0, 0.02, 0.17, 0.5, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def normal(*size: int) -> Tensor:
        x = torch.randn(size, generator=generator)
        layouts = [torch.contiguous_format, torch.channels_last]
        return x.contiguous(memory_format=draw(st.sampled_from(layouts))) if x.dim() == 4 else x

    window = Window(stride, padding)
    x = (torch.rand(images, channels, height, width, generator=generator) < rate).to(dtype)
    if draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    weight = normal(outputs, channels, *kernel)
    bias = normal(outputs) if draw(st.booleans()) else None
    return Case(x, weight, bias, normal(*window.output_size(x.shape, weight.shape)).to(dtype), window)
