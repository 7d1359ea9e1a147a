"""Neurons over time, fast: the equations of `dynamics` compiled, with one tensor of a layer kept for the backward pass.

torch.compile makes one C++ loop (Triton on GPUs) of each direction. Layers that are too small for it to pay, values
per channel, and machines without a compiler take the same equations as PyTorch operations.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import count
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor

from tracegrad.snn.dynamics import Dynamics, backpropagate, fire, integrate_and_fire

WORTH_COMPILING = 2**19
"""Elements of a layer's currents from which the seconds of compiling are won back within minutes of training."""

Kernel = Callable[..., Tensor]


def spikes_of(dynamics: Dynamics, currents: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
    """The spikes of `dynamics.integrate_and_fire`, with its gradients; same arguments."""
    if torch.compiler.is_compiling() or not _pays(currents, threshold, initial):
        return integrate_and_fire(dynamics, currents, threshold, initial)
    return _Neurons.apply(currents, threshold, initial, dynamics)  # pyright: ignore[reportReturnType]


def _pays(currents: Tensor, threshold: Tensor, initial: Tensor) -> bool:
    constants = threshold.numel() == initial.numel() == 1 and not (threshold.requires_grad or initial.requires_grad)
    return constants and currents.numel() >= WORTH_COMPILING and _in_memory_order(currents) is not None


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, currents: Tensor, threshold: Tensor, initial: Tensor, dynamics: Dynamics) -> Tensor:
        ctx.dynamics = dynamics
        ctx.save_for_backward(currents, threshold, initial)
        return _run(fire, dynamics, currents, threshold, initial)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        currents, threshold, initial = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants gradients of gradients: autograd knows them
            spikes = integrate_and_fire(ctx.dynamics, currents, threshold, initial)
            return *torch.autograd.grad(spikes, currents, grad_outputs, create_graph=True), None, None, None
        return _run(backpropagate, ctx.dynamics, currents, threshold, initial, *grad_outputs), None, None, None


def _in_memory_order(currents: Tensor) -> tuple[int, ...] | None:
    """The order of dimensions, time first, in which each step is one block of memory; None if there is none."""
    one = currents[0]
    order = sorted(range(one.dim()), key=lambda dimension: (-one.stride(dimension), dimension))
    return (0, *(dimension + 1 for dimension in order)) if one.permute(order).is_contiguous() else None


def _run(equations: Kernel, dynamics: Dynamics, currents: Tensor, *others: Tensor) -> Tensor:
    """Runs the equations on [T, elements], whatever the shape and layout of the currents."""
    order = cast(tuple[int, ...], _in_memory_order(currents))
    ordered = currents.permute(order)
    # .data is no view: of a view, torch.compile would take the shape of what it looks at for a constant.
    flat, constants = ordered.flatten(1).data, [value.reshape(()).data for value in others[:2]]
    gradients = [gradient.permute(order).flatten(1).data for gradient in others[2:]]
    kind = (flat.shape[0], flat.stride(0) == 0, flat.dtype, *(gradient.dtype for gradient in gradients))
    kernel = _kernel(equations, dynamics, flat.device.type, kind)
    back = sorted(range(len(order)), key=order.__getitem__)
    return kernel(flat, *constants, *gradients).view(ordered.shape).permute(back)


_numbers = count()


@cache
def _kernel(equations: Kernel, dynamics: Dynamics, device: str, kind: tuple[object, ...]) -> Kernel:
    """The equations for one kind of neurons and tensors: compiled once, for layers of any size."""

    def plain(currents: Tensor, *others: Tensor) -> Tensor:
        return equations(dynamics, currents, *others)

    if not _has_compiler(device):
        return plain
    # torch.compile keeps what it compiled, and bounds how much, by code object: a copy gives each kind its own.
    code = plain.__code__.replace(co_name=f"{equations.__name__}_{next(_numbers)}")
    own = FunctionType(code, plain.__globals__, closure=plain.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True)


@cache
def _has_compiler(device: str) -> bool:
    """Whether torch.compile can work: it needs a C++ compiler for CPUs and Triton for GPUs."""
    compiler = os.environ.get("CXX", "g++")
    found = shutil.which(compiler) if device == "cpu" else find_spec("triton")
    if not found:
        needed = f"the C++ compiler {compiler!r} (or set CXX)" if device == "cpu" else "Triton"
        warnings.warn(f"neurons run uncompiled, several times slower: {needed} was not found", stacklevel=2)
    return bool(found)
