"""A copy of a network for measurements."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tracegrad.core.attaching.attach import detach


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy without scaling; states that neurons hold from their last call are copied without their graph."""
    with _Detached():
        duplicate = copy.deepcopy(model)
    with suppress(ValueError):  # no scaling is attached
        detach(duplicate)
    return duplicate


class _Detached(TorchFunctionMode):
    """Makes `deepcopy` take tensors that have a graph."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))
