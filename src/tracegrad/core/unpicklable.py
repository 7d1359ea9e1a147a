"""What is put into other people's modules: it is copied with them, not pickled, and, where need be, not compiled."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def eager(method: Method) -> Method:
    """Keeps a method out of compiled graphs, which it breaks."""
    return cast(Method, torch.compiler.disable(method))  # pyright: ignore[reportUnknownArgumentType]


class Unpicklable:
    """Copied deeply with its model, but not pickled with it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unpicklable":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return duplicate

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a model with gradient scaling attached can't be pickled: call detach() first, or save model.state_dict()"
        )
