"""Which way a call takes: a pure function of its rate, its shape and the instruction set. Nothing is timed at run time.

So a resumed run, a recomputed checkpoint, one process and four, one thread and two take the same ways, and get the same
bits.
"""

import os
from typing import Literal

import torch
from torch import Tensor

from tracegrad.events.library import library, machine_instruction_set
from tracegrad.events.window import Window

Mode = Literal["off", "auto", "always"]
Operation = Literal["current", "weight"]

LARGEST_KERNEL, LARGEST_STRIDE = 7, 2


def mode() -> Mode:
    """What `TRACEGRAD_EVENTS` says: 0 for "off", 1 for "always" (where it is possible at all), else "auto".

    Raises:
        ValueError: it says something else.
    """
    said = os.environ.get("TRACEGRAD_EVENTS", "auto")
    known: dict[str, Mode] = {"0": "off", "auto": "auto", "1": "always"}
    if said not in known:
        raise ValueError(f"TRACEGRAD_EVENTS must be 0, 1 or auto, not {said!r}")
    return known[said]


def is_possible(x: Tensor, weight: Tensor, dtype: torch.dtype, window: Window, mode: Mode) -> bool:
    """Whether packed spikes of images `x`, if that is what they are, can be convolved to a current of `dtype`."""
    if type(x) is not Tensor or type(weight) not in (Tensor, torch.nn.Parameter):
        return False  # what others make of tensors may have no memory, or only a part of it here
    if mode == "off" or x.device.type != "cpu" or weight.device.type != "cpu" or x.shape[1:2] != weight.shape[1:2]:
        return False
    if max(weight.shape[2:]) > LARGEST_KERNEL or max(window.stride) > LARGEST_STRIDE or not x.numel():
        return False
    if any(
        size + 2 * pad < kernel for size, pad, kernel in zip(x.shape[2:], window.padding, weight.shape[2:], strict=True)
    ):
        return False
    if dtype == x.dtype == weight.dtype == torch.float64:
        return mode == "always"  # the twins, for tests
    known = (torch.float32, torch.bfloat16)
    fits = (
        x.dtype in known
        and weight.dtype in known
        and dtype in (torch.bfloat16, torch.promote_types(x.dtype, weight.dtype))
    )
    return fits and library(machine_instruction_set()) is not None


def pays(operation: Operation, rate: float, weight: torch.Size, dtype: torch.dtype, mode: Mode) -> bool:
    """Whether the event kernels are faster than the dense ones, as far as `BREAK_EVEN` knows.

    Args:
        operation: the current, or the weight's gradient (and the relation).
        rate: the part of the inputs that fired.
        weight: its shape, [outputs, C, kernel height, kernel width].
        dtype: of the current, or of its gradient.
        mode: "always" for yes.
    """
    return mode == "always" or rate < break_even(operation, weight, dtype, machine_instruction_set())


def break_even(operation: Operation, weight: torch.Size, dtype: torch.dtype, instruction_set: str) -> float:
    """The rate at which both ways take as long; 0 where the event kernels never pay."""
    precision = "bf16" if dtype == torch.bfloat16 else "float32"
    pointwise = weight[2:].numel() == 1
    smaller = min(weight[:2]) if pointwise else weight[0]
    row = BREAK_EVEN[instruction_set, precision, operation, "1x1" if pointwise else "larger"]
    return row[0 if smaller <= 16 else 1 if smaller <= 32 else 2 if smaller < 256 else 3]


Row = tuple[float, float, float, float]

BREAK_EVEN: dict[tuple[str, str, Operation, Literal["1x1", "larger"]], Row] = {
    ("avx512_bf16", "bf16", "current", "larger"): (0.45, 0.5, 0.6, 0.6),
    ("avx512_bf16", "bf16", "current", "1x1"): (0.0, 0.0, 0.5, 0.7),
    ("avx512_bf16", "bf16", "weight", "larger"): (0.45, 0.6, 0.6, 0.55),
    ("avx512_bf16", "bf16", "weight", "1x1"): (0.3, 0.3, 0.6, 0.7),
    ("avx512_bf16", "float32", "current", "larger"): (0.6, 0.6, 0.6, 0.55),
    ("avx512_bf16", "float32", "current", "1x1"): (0.0, 0.0, 0.6, 0.7),
    ("avx512_bf16", "float32", "weight", "larger"): (0.55, 0.6, 0.65, 0.65),
    ("avx512_bf16", "float32", "weight", "1x1"): (0.5, 0.5, 0.5, 0.7),
    ("avx2", "float32", "current", "larger"): (0.35, 0.4, 0.6, 0.6),
    ("avx2", "float32", "current", "1x1"): (0.0, 0.0, 0.0, 0.6),
    ("avx2", "float32", "weight", "larger"): (0.5, 0.6, 0.6, 0.6),
    ("avx2", "float32", "weight", "1x1"): (0.4, 0.4, 0.5, 0.6),
    ("avx2", "bf16", "current", "larger"): (0.35, 0.4, 0.6, 0.6),
    ("avx2", "bf16", "current", "1x1"): (0.0, 0.0, 0.0, 0.6),
    ("avx2", "bf16", "weight", "larger"): (0.5, 0.6, 0.6, 0.6),
    ("avx2", "bf16", "weight", "1x1"): (0.4, 0.4, 0.5, 0.6),
    ("plain", "float32", "current", "larger"): (0.1, 0.2, 0.3, 0.3),
    ("plain", "float32", "current", "1x1"): (0.0, 0.0, 0.0, 0.3),
    ("plain", "float32", "weight", "larger"): (0.25, 0.3, 0.35, 0.3),
    ("plain", "float32", "weight", "1x1"): (0.15, 0.15, 0.15, 0.3),
    ("plain", "bf16", "current", "larger"): (0.1, 0.2, 0.3, 0.3),
    ("plain", "bf16", "current", "1x1"): (0.0, 0.0, 0.0, 0.3),
    ("plain", "bf16", "weight", "larger"): (0.25, 0.3, 0.35, 0.3),
    ("plain", "bf16", "weight", "1x1"): (0.15, 0.15, 0.15, 0.3),
}
"""(instruction set, precision, operation, kernel) -> break-even rates where up to 16, up to 32, fewer than 256, and
more channels come out (1x1 kernels: the smaller of both ends), packing included.

Measured on a Zen 4 processor, one thread, rounded down. The dense way had its AVX-512 there, also beside "avx2" and
"plain", whose rates are so too careful rather than too bold; those of their bf16 are those of float32.
"""
