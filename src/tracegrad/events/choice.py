"""Which way a call takes: a pure function of its rate, its shape and the instruction set. Nothing is timed at run time.

So a resumed run, a recomputed checkpoint, one process and four, one thread and two take the same ways, and get the same
bits.
"""

import math
import os
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tracegrad.events.library import library, machine_instruction_set
from tracegrad.events.window import Window

Events = Literal["auto"] | bool
Mode = Literal["off", "auto", "always"]
Operation = Literal["current", "weight"]
OPERATIONS: tuple[Operation, ...] = ("current", "weight")


class Way(NamedTuple):
    """What a call of a layer took.

    Attributes:
        rate: the part of its inputs that fired; None where these are no spikes that were packed.
        by_events: whether its current was summed over spikes; None where that is not known yet.
    """

    rate: float | None = None
    by_events: bool | None = None

    def __str__(self) -> str:
        if self.rate is None:
            return "dense" if self.by_events is not None else ""
        fired = f"{100 * self.rate:.1f} % fire"
        return fired if self.by_events is None else f"{fired}: {'by events' if self.by_events else 'dense'}"


NOT_CALLED = Way()

LARGEST_KERNEL, LARGEST_STRIDE = 7, 2
LEAST_PRODUCTS = 2**23
"""Of smaller convolutions the calls themselves take longer than what can be won: so many multiply-accumulates.

`python benchmarks/event_sizes.py FOLDER` measured 3 to 9 millions in bf16, and from 10 on in float32.
"""


def mode(events: Events = "auto") -> Mode:
    """When sums run over spikes: where that pays ("auto"), wherever it is possible at all ("always"), or never ("off").

    Args:
        events: what the caller asks for: True for "always", False for "off", "auto" for what `TRACEGRAD_EVENTS` says: 1
            for "always", 0 for "off", else "auto". A 0 there is stronger than True here.

    Raises:
        ValueError: one of them is none of these.
    """
    said = os.environ.get("TRACEGRAD_EVENTS", "auto")
    known: dict[object, Mode] = {"0": "off", "auto": "auto", "1": "always", True: "always", False: "off"}
    if said not in ("0", "1", "auto"):
        raise ValueError(f"TRACEGRAD_EVENTS must be 0, 1 or auto, not {said!r}")
    if events not in (True, False, "auto"):
        raise ValueError(f"events must be True, False or 'auto', not {events!r}")
    return known[said if events == "auto" or said == "0" else events]


def can_pack(x: Tensor, mode: Mode) -> bool:
    """Whether images [N, C, H, W] may be packed, if it is spikes that they are."""
    if mode == "off" or torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    if x.device.type != "cpu" or not x.numel():
        return False
    if type(x) is not Tensor:
        return False  # what others make of tensors may have no memory, or only a part of it here
    if x.dtype == torch.float64:
        return mode == "always"  # by the twins, for tests
    return x.dtype in (torch.float32, torch.bfloat16) and library(machine_instruction_set()) is not None


def can_sum(
    images: torch.Size,
    spikes: torch.dtype,
    weight: torch.Size,
    weights: torch.dtype,
    current: torch.dtype,
    window: Window,
) -> bool:
    """Whether the kernels know such a convolution of packed spikes.

    Args:
        images: [N, C, H, W].
        spikes: their type.
        weight: [outputs, C, kernel height, kernel width].
        weights: its type.
        current: the type of the current, or of what is correlated with the spikes.
        window: stride and padding.
    """
    if images[1] != weight[1] or max(weight[2:]) > LARGEST_KERNEL or max(window.stride) > LARGEST_STRIDE:
        return False
    if any(n + 2 * pad < kernel for n, pad, kernel in zip(images[2:], window.padding, weight[2:], strict=True)):
        return False
    if spikes == torch.float64:
        return weights == current == torch.float64
    return weights in (torch.float32, torch.bfloat16) and current in (
        torch.bfloat16,
        torch.promote_types(spikes, weights),
    )


def can_pay(images: torch.Size, weight: torch.Size, dtype: torch.dtype) -> bool:
    """Whether the event kernels may be faster for this layer at some rate; else packing its spikes is lost time.

    Args:
        images: [N, C, H, W], at either end.
        weight: [outputs, C, kernel height, kernel width].
        dtype: of the current.
    """
    positions = images.numel() // max(images[1], 1)
    return any(cost(operation, 0, weight, positions, dtype) < 1 for operation in OPERATIONS)


def cost(operation: Operation, rate: float, weight: torch.Size, positions: int, dtype: torch.dtype) -> float:
    """The time of the event kernels on this machine, as a part of the dense way's, as far as `BREAK_EVEN` knows.

    Args:
        operation: the current, or the weight's gradient (and the relation).
        rate: the part of the inputs that fired.
        weight: its shape, [outputs, C, kernel height, kernel width].
        positions: of the current, N * H' * W'.
        dtype: of the current, or of its gradient.
    """
    even = break_even(operation, weight, dtype, machine_instruction_set())
    return rate / even if even and positions * weight.numel() >= LEAST_PRODUCTS else math.inf


def break_even(operation: Operation, weight: torch.Size, dtype: torch.dtype, instruction_set: str) -> float:
    """The rate at which both ways take as long; 0 where the event kernels never pay."""
    precision = "bf16" if dtype == torch.bfloat16 else "float32"
    pointwise = weight[2:].numel() == 1
    smaller = min(weight[:2]) if pointwise else weight[0]
    row = BREAK_EVEN[instruction_set, precision, operation, "1x1" if pointwise else "larger"]
    return row[0 if smaller <= 16 else 1 if smaller <= 32 else 2 if smaller < 256 else 3]


Row = tuple[float, float, float, float]

BREAK_EVEN: dict[tuple[str, str, Operation, Literal["1x1", "larger"]], Row] = {
    ("amx_bf16", "bf16", "current", "larger"): (0.0, 0.0, 0.0, 0.0),
    ("amx_bf16", "bf16", "current", "1x1"): (0.0, 0.0, 0.0, 0.0),
    ("amx_bf16", "bf16", "weight", "larger"): (0.0, 0.0, 0.0, 0.0),
    ("amx_bf16", "bf16", "weight", "1x1"): (0.0, 0.0, 0.0, 0.0),
    ("amx_bf16", "float32", "current", "larger"): (0.2, 0.5, 0.6, 0.55),
    ("amx_bf16", "float32", "current", "1x1"): (0.0, 0.0, 0.05, 0.45),
    ("amx_bf16", "float32", "weight", "larger"): (0.5, 0.6, 0.65, 0.65),
    ("amx_bf16", "float32", "weight", "1x1"): (0.5, 0.5, 0.5, 0.5),
    ("avx512_bf16", "bf16", "current", "larger"): (0.35, 0.5, 0.6, 0.6),
    ("avx512_bf16", "bf16", "current", "1x1"): (0.0, 0.0, 0.5, 0.7),
    ("avx512_bf16", "bf16", "weight", "larger"): (0.3, 0.6, 0.6, 0.55),
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

Measured on a Zen 4 processor, one thread (up to 16 channels in bf16: two, which gain less there), rounded down. The
dense way had its AVX-512 there, also beside "avx2" and "plain", whose rates are so too careful rather than too
bold; those of their bf16 are those of float32. "amx_bf16": on a Sapphire Rapids processor, whose matrix tiles take the
dense way in bf16 at 656 billion products a second and core, fifteen times as fast as its AVX-512 does. Only
gradients of weights at rates up to 5 % (256 channels: 15 %) would gain there; they lose it again by packing, and as
the gradient of the input is then computed by itself.
"""
