"""Elementwise equations made one loop over memory by torch.compile: C++ on CPUs, Triton on GPUs.

Where no compiler is found the same equations run as PyTorch operations, after one warning.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

WORTH_COMPILING = 2**19
"""Elements of a layer's currents from which the seconds of compiling are won back within minutes of training."""

Order = tuple[int, ...]
"""The dimensions of a tensor [T, ...], the first of them first, as they lie in memory within each step."""


def worth_compiling(elements: int) -> bool:
    """Whether one compiled pass that makes this many numbers is worth it: not within what is being compiled itself."""
    return not torch.compiler.is_compiling() and elements >= WORTH_COMPILING


def lies_in(order: Order, x: Tensor) -> bool:
    """Whether each step of x is one block of memory, in this order of its dimensions."""
    return x.permute(order)[0].is_contiguous()


def common_order(xs: Sequence[Tensor]) -> Order | None:
    """The order in which the steps of all these tensors, of one shape, are blocks of memory; None if there is none."""
    first = xs[0]
    order = (0, *sorted(range(1, first.dim()), key=lambda dimension: (-first.stride(dimension), dimension)))
    return order if all(x.shape == first.shape and lies_in(order, x) for x in xs) else None


def order_to_compile(x: Tensor) -> Order | None:
    """The `common_order` of the steps of x, if a compiled pass over x is worth it and needs no graph."""
    return common_order([x]) if worth_compiling(x.numel()) and not torch.is_grad_enabled() else None


def flatten_steps(x: Tensor, order: Order) -> Tensor:
    """The steps of x, [T, elements]."""
    return x.permute(order).flatten(1)


def unflatten_steps(steps: Tensor, like: Tensor, order: Order) -> Tensor:
    """The inverse of `flatten_steps`: [S, elements] to [S, ...], each step shaped and laid out like those of `like`."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return steps.reshape(steps.shape[0], *(like.shape[dimension] for dimension in order[1:])).permute(back)


def compiled(equations: Callable[..., Any], *constants: Hashable) -> Callable[..., Any]:
    """Equations for tensors of any size: compiled once for each kind of tensors that they meet.

    Args:
        equations: a function (*constants, *tensors) -> a tensor or tensors, without side effects.
        constants: its first arguments; the number of steps belongs here, if the equations name each of them.

    Returns:
        The function of the tensors that are left, all on one device. It has no gradient.
    """

    def run(*tensors: Tensor) -> Any:
        # Of a view, torch.compile would take the shape of what it looks at for a constant: .data is no view.
        kernel = _kernel(equations, constants, tensors[0].device.type, tuple(map(_kind, tensors)))
        return kernel(*(tensor.data for tensor in tensors))

    return run


def _kind(tensor: Tensor) -> Hashable:
    """What torch.compile tells apart, whatever the size: type, repetition, dimensions of size 1."""
    return tensor.dtype, tensor.dim() > 0 and tensor.stride(0) == 0, tuple(size == 1 for size in tensor.shape)


_numbers = count()


@cache
def _kernel(
    equations: Callable[..., Any], constants: tuple[Hashable, ...], device: str, kind: tuple[Hashable, ...]
) -> Callable[..., Any]:
    def plain(*tensors: Tensor) -> Any:
        return equations(*constants, *tensors)

    if not has_compiler(device):
        return plain
    # torch.compile keeps what it compiled, and bounds how much, by code object: a copy gives each kind its own.
    code = plain.__code__.replace(co_name=f"{equations.__name__}_{next(_numbers)}")
    own = FunctionType(code, plain.__globals__, closure=plain.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True)


@cache
def has_compiler(device: str) -> bool:
    """Whether torch.compile can work: it needs a C++ compiler for CPUs and Triton for GPUs."""
    compiler = os.environ.get("CXX", "g++")
    found = shutil.which(compiler) if device == "cpu" else find_spec("triton")
    if not found:
        needed = f"the C++ compiler {compiler!r} (or set CXX)" if device == "cpu" else "Triton"
        warnings.warn(f"neurons run uncompiled, several times slower: {needed} was not found", stacklevel=2)
    return bool(found)
