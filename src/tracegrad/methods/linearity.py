"""Finds what a conversion would leave out: operations that are not linear, outside the modules that it replaces.

A converted network is right because the mean over time of its neurons' spikes is near the activation that they
replace, and because everything between two activations is affine, f(x) = A x + b, and so takes means to means.
An activation that is no module (`F.relu`, `x.clamp(min=0)`), or another one (`nn.GELU`, a softmax), breaks the second.

So every operation on activations is called again, at 0, u, -u and 2u with large random u. It is affine if

    f(u) + f(-u) = 2 f(0)    and    f(2u) + f(0) = 2 f(u).

Signs and factors of two are exact in floating point: what an affine operation misses these by is the rounding of b.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Kind = Literal["input", "activation", "decision"]
"""What is computed from the example alone; from activations; and what is no number, such as a comparison of them."""

_ROUNDING = 64  # units of the last place; a miss of more is no rounding


def check_linear(
    network: nn.Module, example: Tensor, replaced: tuple[type[nn.Module], ...], allowed: str | None = None
) -> None:
    """Checks that all that a network computes is affine, except in modules of some classes.

    What is computed from the example alone, before it meets a weight or another tensor, is the same at every time step
    and may be anything.

    Args:
        network: in evaluation mode.
        example: what it takes; one image is enough.
        replaced: the classes of the modules that a conversion replaces. A subclass with a `forward` of its own is
            something else.
        allowed: functions whose names hold this are left alone.

    Raises:
        ValueError: something else is computed; the error names it, and the module that does.
    """
    running: list[tuple[str, nn.Module]] = []

    def enter(name: str, module: nn.Module, *_: Any) -> None:
        running.append((name, module))

    def leave(*_: Any) -> None:
        running.pop()

    handles = [
        handle
        for name, module in network.named_modules()
        for handle in (
            module.register_forward_pre_hook(partial(enter, name)),
            module.register_forward_hook(leave),
        )
    ]
    watch = _Watch(example, replaced, allowed, running)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), watch:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    if watch.complaint:  # not raised on the spot: a scripted function would make something else of it
        raise ValueError(watch.complaint)


class _Watch(TorchDispatchMode):
    """Judges every operation on what is computed from the example."""

    def __init__(
        self,
        example: Tensor,
        replaced: tuple[type[nn.Module], ...],
        allowed: str | None,
        running: list[tuple[str, nn.Module]],
    ) -> None:
        super().__init__()
        self.replaced, self.allowed, self.running = replaced, allowed, running
        # By the address of the memory, which views share; the memory itself is kept so that no other gets its address.
        self.kinds: dict[int, tuple[Kind, Any]] = {}
        self.random = torch.Generator().manual_seed(0)
        self.complaint = ""
        self._note([example], "input")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kinds: set[Kind | None] = {self._kind(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        if "empty" in func.overloadpacket.__name__ or not kinds - {None}:  # nothing of the example is in the result
            return func(*args, **kwargs)
        kind: Kind = "activation"
        if self._is_left_alone(func):
            is_affine, is_constant = True, False
        elif kinds == {"input"}:
            is_affine, is_constant, kind = True, False, "input"
        else:
            is_affine, is_constant = self._judge(func, args, kwargs, kinds)
        result = func(*args, **kwargs)
        if not is_affine and any(map(_is_number, tree_leaves(result))):
            self.complaint = self.complaint or self._complain(func)
        if not is_constant:
            self._note(tree_leaves(result), kind)
        return result

    def _kind(self, tensor: Tensor) -> Kind | None:
        return self.kinds.get(_address(tensor), (None, None))[0]

    def _note(self, results: Iterable[Any], kind: Kind) -> None:
        for each in results:
            if isinstance(each, Tensor) and (address := _address(each)):
                found: Kind = "decision" if kind == "activation" and not _is_number(each) else kind
                self.kinds[address] = found, each.untyped_storage()

    def _is_left_alone(self, func: Any) -> bool:
        if self.allowed is not None and self.allowed in func.overloadpacket.__name__:
            return True
        return any(is_exactly(module, self.replaced) for _, module in self.running)

    def _judge(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kinds: set[Kind | None]
    ) -> tuple[bool, bool]:
        """Whether an operation is affine in the activations, and whether all it takes of them is the shape."""
        if "decision" in kinds:
            return False, False
        points: dict[int, Tensor] = {}

        def at(factor: int, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if self._kind(value) != "activation":
                return value.clone() if func._schema.is_mutable else value
            if id(value) not in points:
                points[id(value)] = self._point(value)
            return factor * points[id(value)]

        def call(factor: int) -> list[Tensor]:
            arguments, keywords = tree_map(partial(at, factor), (args, kwargs))
            return [each for each in tree_leaves(func(*arguments, **keywords)) if isinstance(each, Tensor)]

        zero, once, minus, twice = (call(factor) for factor in (0, 1, -1, 2))
        if kinds == {"activation"} and all(map(torch.equal, zero, once)) and all(map(torch.equal, zero, twice)):
            return True, True  # such as zeros_like
        numbers = [each for each in zip(zero, once, minus, twice, strict=True) if _is_number(each[0])]
        return all(_is_affine(*values) for values in numbers), False

    def _point(self, like: Tensor) -> Tensor:
        """Values of both signs, of 4 or the largest activation to twice that."""
        values = 2 * torch.rand(like.shape, generator=self.random) - 1
        finite = like[like.isfinite()].abs()  # memory that is not written yet holds anything
        largest = max(4.0, finite.amax().item() if finite.numel() else 0.0)
        return (min(largest, torch.finfo(like.dtype).max ** 0.5) * (values.sign() + values)).to(like)

    def _complain(self, func: Any) -> str:
        name, module = self.running[-1]
        where = f"{name!r} ({type(module).__name__})" if name else type(module).__name__
        known = " or ".join(each.__name__ for each in self.replaced)
        return (
            f"the forward of {where} computes {func.overloadpacket.__name__.lstrip('_')!r}, which is not linear. A "
            f"conversion replaces modules of class {known} and nothing else: use one of them there (a softmax at the "
            "end belongs to the loss)"
        )


def is_exactly(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of some classes, and computes what the class does."""
    return any(isinstance(module, each) and type(module).forward is each.forward for each in classes)


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_affine(zero: Tensor, once: Tensor, minus: Tensor, twice: Tensor) -> bool:
    scale = torch.stack([each.abs().amax() for each in (zero, once, minus, twice)]).amax() if zero.numel() else 0
    tolerance = _ROUNDING * torch.finfo(zero.dtype).eps * scale
    misses = ((once + minus) - 2 * zero).abs(), ((twice + zero) - 2 * once).abs()
    return all(bool((miss <= tolerance).all()) for miss in misses)
