"""What is put into other people's modules: it is copied with them, not pickled or scripted, nor always compiled."""

import copy
from collections.abc import Callable
from typing import Any, Never, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def eager(method: Method) -> Method:
    """Keeps a method out of compiled graphs, which it breaks."""
    return cast(Method, torch.compiler.disable(method))  # pyright: ignore[reportUnknownArgumentType]


class Unpicklable:
    """Copied deeply with its model, but neither pickled nor scripted with it."""

    def __getattr__(self, name: str) -> Never:
        """What only functions have, for which `torch.jit.script` takes hooks and methods, is asked for in vain."""
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if name in ("__name__", "__globals__"):
            attached = "a model with gradient scaling or acceleration attached"
            message = f"{attached} can't be scripted: call detach() first ({message})"
        raise AttributeError(message)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unpicklable":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return duplicate

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a model with gradient scaling or acceleration attached can't be pickled: call detach() first, or save "
            "model.state_dict()"
        )
