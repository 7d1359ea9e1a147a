"""Every private name of PyTorch's that the method needs, and what it is needed for; there is no public way to ask."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

Node = Any  # an autograd node; PyTorch does not type them

# pyright: reportPrivateUsage=false


def in_backward_pass() -> bool:
    """Whether a backward pass is running: a forward pass within it recomputes what a checkpoint has dropped."""
    return backward_pass() != -1


def backward_pass() -> int:
    """The number of the backward pass that is running; -1 if none is."""
    return torch._C._current_graph_task_id()


def is_in_backward_pass(node: Node) -> bool:
    """Whether the backward pass that is running comes, or came, to a node."""
    return torch._C._will_engine_execute_node(node)


def after_backward_pass(call: Callable[[], object]) -> None:
    """Has something called when the running backward pass is over."""
    cast(Any, torch.autograd.Variable)._execution_engine.queue_callback(call)


def version_of(x: Tensor) -> int:
    """How often a tensor was written in place; tensors of inference mode do not count that."""
    return 0 if x.is_inference() else x._version


def whole(x: Tensor) -> Tensor:
    """The same memory as a tensor that is no view: what a Function returns as a view may not be written in place."""
    if torch.compiler.is_compiling() or not x._is_view():
        return x
    return torch.ops.aten._unsafe_view(x, x.shape) if x.is_contiguous() else x.clone()


def inputs_of(node: Node) -> Iterator[tuple[Node, int, torch.Size]]:
    """The outputs that a node took: of which node, which of its outputs, of which shape."""
    for child, output in node.next_functions:
        if child is not None:
            yield child, output, torch.Size(child._input_metadata[output].shape)


def is_function(node: Node) -> bool:
    """Whether a node is a `torch.autograd.Function`'s, which only its author knows."""
    return isinstance(node, torch._C._FunctionBase)


def outputs_of(node: Node) -> int:
    """How many outputs a node has."""
    return len(node._input_metadata)


def output_shape(node: Node) -> torch.Size:
    """The shape of a node's first output."""
    return torch.Size(node._input_metadata[0].shape)


def gradients_of(node: Node, *gradients: Tensor) -> list[Tensor | None]:
    """What a node's own backward makes of the gradients of its outputs; it may have tensors on another device."""
    device = node._input_metadata[0].device
    made = node(*(gradient.to(device) for gradient in gradients))
    parts = made if isinstance(made, tuple) else (made,)
    return [None if part is None else part.to(gradients[0].device) for part in cast(tuple[Tensor | None, ...], parts)]


def gradient_of(node: Node, *gradients: Tensor) -> Tensor:
    """`gradients_of` a node with one input."""
    return cast(Tensor, gradients_of(node, *gradients)[0])


def stacked_dimension(node: Node) -> int:
    """The dimension in which a node of `torch.stack` has stacked."""
    dim = node._saved_dim
    return dim - 2**64 if dim >= 2**63 else dim  # negative ones come back as unsigned numbers


def creation_number(node: Node) -> int:
    """Numbers the nodes in the order in which the forward pass made them."""
    return node._sequence_nr()


def forward_pre_hooks(module: nn.Module) -> list[Any]:
    """A module's forward pre-hooks."""
    return list(module._forward_pre_hooks.values())


def forward_hooks(module: nn.Module) -> list[Any]:
    """A module's forward hooks."""
    return list(module._forward_hooks.values())


def backward_hooks(module: nn.Module) -> list[Any]:
    """A module's hooks that listen to gradients."""
    return [*module._backward_hooks.values(), *module._backward_pre_hooks.values()]


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` has wrapped a model or compiled it in place."""
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None


def is_replica(module: nn.Module) -> bool:
    """Whether `nn.DataParallel` has made this module for one of its threads."""
    return getattr(module, "_is_replica", False)


CONVOLUTION_SEAM = "_conv_forward"
"""The method in which a convolution computes its current from input, weight and bias; its forward calls it."""
