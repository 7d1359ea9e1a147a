"""A second device without hardware: a tensor there has its values on the CPU, and does not mix with the CPU's.

Its name is "meta", since autograd takes that for a device of the CPU's own thread. What would be an error on a GPU,
an operation on tensors of both devices other than a copy or one with a number, is an error here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FarTensor(Tensor):
    """Holds `near`, its values."""

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        like = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        far = Tensor._make_wrapper_subclass(cls, near.size(), device=FAR, **like)
        far.near = near
        return far

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `two_devices`")


class _TwoDevices(TorchDispatchMode):
    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        far = [x for x in tensors if isinstance(x, FarTensor)]
        near = [x for x in tensors if not isinstance(x, FarTensor) and x.dim()]
        if far and near and func not in COPIES:
            shapes = [tuple(x.shape) for x in tensors]
            raise RuntimeError(f"{func}: expected all tensors to be on the same device; their shapes are {shapes}")
        device = kwargs.get("device")
        is_far = bool(far) if device is None else torch.device(device) == FAR
        if device is not None:
            kwargs["device"] = "cpu"
        result = func(*tree_map(near_of, args), **tree_map(near_of, kwargs))
        if func is torch.ops.aten.copy_.default:
            return args[0]
        written = {id(x.near): x for x in far}

        def placed(x: Any) -> Any:
            return written.get(id(x), FarTensor(x) if is_far else x) if isinstance(x, Tensor) else x

        return tree_map(placed, result)


def near_of(x: Any) -> Any:
    """The values of a far tensor on the CPU; anything else as it is."""
    return x.near if isinstance(x, FarTensor) else x


@contextmanager
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the second device; it has no autocast."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **to: nullcontext() if kind == FAR.type else autocast(kind, **to)
    )
    with _TwoDevices():
        yield


def move(model: nn.Module) -> nn.Module:
    """Moves a model there, also tensors that are attributes."""
    model.to(FAR)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, value.to(FAR))
    return model
