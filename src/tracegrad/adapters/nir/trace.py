"""A model as a graph of layers, recorded in one forward pass on an example."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tracegrad.core.neurons import is_neuron

SHAPES = {"flatten", "unflatten", "reshape", "view", "unsqueeze", "squeeze", "__getitem__"}
COPIES = {"contiguous", "clone", "detach", "to", "float", "double"}
REPEATS = {"expand", "expand_as"}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
POOLS = {"avg_pool2d": nn.AvgPool2d, "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d}


@dataclass(frozen=True, eq=False)
class Step:
    """What happens to one time step of one sample.

    Args:
        name: of the layer, or of the function that the model calls.
        layer: the module; None for the input and for sums.
        inputs: the steps before it; a sum has two, the input none.
        shape: of the result, without time and batch: (C, H, W), (C, L) or (N,).
    """

    name: str
    layer: nn.Module | None
    inputs: tuple[Step, ...]
    shape: tuple[int, ...]


def trace(model: nn.Module, example: Tensor) -> list[Step]:
    """The steps from a model's input to its output, in evaluation mode and in the order of computation.

    Args:
        model: its layers are modules; between them it may add, reshape, and average over space.
        example: images [B, C, H, W], frames [T, B, C, H, W], vectors [T, B, N], or, where the first convolution is an
            `nn.Conv1d`, signals [B, C, L] or [T, B, C, L].

    Raises:
        ValueError: the model does something else, which is named.
    """
    dims = _sample_dims(model, example)
    if example.dim() <= dims:
        raise ValueError(
            f"the example must have a batch dimension before the {dims} of a sample; it is of shape "
            f"{list(example.shape)}"
        )
    watch = _Watch(example, tuple(example.shape[-dims:]))
    training = [module for module in model.modules() if module.training]
    handles = [
        handle for name, module in model.named_modules() if _is_layer(module) for handle in watch.hook(name, module)
    ]
    try:
        model.eval()
        with torch.no_grad(), watch:
            output = model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    if not isinstance(output, Tensor) or watch.step_of(output) is None:
        raise ValueError(f"the model must return one tensor that its layers computed, not {type(output).__name__}")
    return _before(watch.step_of(output))


def _sample_dims(model: nn.Module, example: Tensor) -> int:
    """How many dimensions of the example belong to one sample; layers tell [T, B, C, L] from [B, C, H, W]."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)), None)
    if isinstance(first, nn.Conv1d):
        return 2
    return 3 if example.dim() > 3 else 1


def _before(last: Step | None) -> list[Step]:
    """A step and all that it needs, inputs first."""
    order: dict[Step, None] = {}
    stack = [(last, False)]
    while stack:
        step, ready = stack.pop()
        if step is None or step in order:
            continue
        if ready:
            order[step] = None
        else:
            stack.append((step, True))
            stack.extend((each, False) for each in reversed(step.inputs))
    return list(order)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one step: neurons, and PyTorch's own layers with their subclasses."""
    own = (each.__module__ for each in type(module).__mro__ if each is not nn.Module)
    return is_neuron(module) or any(
        each.startswith("torch.nn.modules.") and each != "torch.nn.modules.container" for each in own
    )


class _Watch(TorchFunctionMode):
    """Records which step computed which tensor."""

    def __init__(self, example: Tensor, sample: tuple[int, ...]) -> None:
        super().__init__()
        start = Step("input", None, (), sample)
        self._steps: dict[int, tuple[Tensor, Step]] = {id(example): (example, start)}
        self._inside = 0

    def step_of(self, value: Any) -> Step | None:
        return self._steps[id(value)][1] if id(value) in self._steps else None

    def hook(self, name: str, layer: nn.Module) -> list[Any]:
        """Records a layer as one step."""

        def enter(*_: Any) -> None:
            self._inside += 1

        def leave(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            self._inside -= 1
            before = self.step_of(arguments[0]) if arguments else None
            if self._inside == 0 and before is not None:
                self._layer(name or type(layer).__name__, layer, before, arguments[0], output)

        return [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._inside == 0:
            makes = func.__name__ == "__setitem__" or any(isinstance(each, Tensor) for each in tree_leaves(result))
            if makes and any(map(self.step_of, tree_leaves((args, kwargs)))):
                self._function(func.__name__, args, kwargs or {}, result)
        return result

    def _note(self, result: Tensor, step: Step) -> None:
        self._steps[id(result)] = (result, step)  # holding the tensor keeps its id its own

    def _layer(self, name: str, layer: nn.Module, before: Step, x: Tensor, output: Any) -> None:
        if isinstance(layer, nn.Identity | nn.Dropout | nn.Dropout2d):
            self._note(output, before)
        elif isinstance(layer, nn.Flatten | nn.Unflatten):
            self._reshape(name, before, x, output)
        else:
            for each in tree_leaves(output):  # recurrent layers return several, and are refused when they are written
                self._note(each, Step(name, layer, (before,), tuple(each.shape[-len(before.shape) :])))

    def _function(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        operands = [self.step_of(each) for each in args]
        before = operands[0]
        if name in SUMS and not kwargs and len(args) == 2:
            self._sum(name, args, operands, result)
        elif before is None:
            raise ValueError(f"NIR cannot say what the model does with {name!r}")
        elif name in SHAPES | COPIES:
            self._reshape(name, before, args[0], result)
        elif name in REPEATS and result.shape[-len(before.shape) :] == before.shape:
            self._note(result, before)
        elif name in POOLS:
            self._layer(name, POOLS[name](*args[1:], **kwargs), before, args[0], result)
        elif name == "mean":
            self._mean(before, args[0], result, *args[1:], **kwargs)
        else:
            raise ValueError(f"NIR cannot say what the model does with {name!r} after {before.name!r}")

    def _sum(self, name: str, args: tuple[Any, ...], operands: list[Step | None], result: Tensor) -> None:
        first, second = operands
        if first and second and first.shape == second.shape:
            self._note(result, Step("sum", None, (first, second), first.shape))
        elif (first or second) and any(isinstance(each, int | float) and each == 0 for each in args):  # of sum([...])
            self._note(result, first or second)  # pyright: ignore[reportArgumentType] - one of them is there
        else:
            names = [each.name for each in operands if each]
            raise ValueError(
                f"NIR adds only outputs of layers of the same shape; the model adds something else to {names}"
            )

    def _reshape(self, name: str, before: Step, x: Tensor, result: Tensor) -> None:
        """Time and batch may be folded, and a sample flattened; nothing may be dropped."""
        size = math.prod(before.shape)
        if result.numel() == x.numel() and result.shape[-len(before.shape) :] == before.shape:
            self._note(result, before)
        elif result.numel() == x.numel() and result.shape[-1] == size:
            self._note(result, Step(name, nn.Flatten(-len(before.shape)), (before,), (size,)))
        else:
            raise ValueError(
                f"NIR cannot say how {name!r} makes {list(result.shape)} of {list(x.shape)} after {before.name!r}: "
                f"time and batch may be folded, and samples {list(before.shape)} flattened"
            )

    def _mean(self, before: Step, x: Tensor, result: Tensor, dim: Any = None, keepdim: bool = False) -> None:
        dims = {each % x.dim() for each in (dim if isinstance(dim, tuple | list) else [dim])} if dim is not None else {}
        if len(before.shape) != 3 or dims != {x.dim() - 2, x.dim() - 1}:
            raise ValueError(f"NIR averages only over height and width, not over {dim} of {list(x.shape)}")
        pooled = Step("mean", nn.AvgPool2d(before.shape[1:]), (before,), (before.shape[0], 1, 1))
        self._note(result, pooled if keepdim else Step("flatten", nn.Flatten(-3), (pooled,), before.shape[:1]))
