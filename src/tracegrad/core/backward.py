"""What PyTorch tells about a running backward pass; there is no public way to ask."""

from collections.abc import Callable
from typing import Any, cast

import torch


def in_backward_pass() -> bool:
    """Whether a backward pass is running: a forward pass within it computes anew what a checkpoint has dropped."""
    return torch._C._current_graph_task_id() != -1  # pyright: ignore[reportPrivateUsage]


def after_backward_pass(call: Callable[[], object]) -> None:
    """Has something called when the running backward pass is over."""
    cast(Any, torch.autograd.Variable)._execution_engine.queue_callback(call)
