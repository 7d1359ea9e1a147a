"""What modules keep in attributes of their own: the states of other libraries' neurons, masks, counters."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils._pytree import tree_map

_OF_EVERY_MODULE = nn.Module().__dict__.keys()


def kept_attributes(model: nn.Module) -> Callable[[], None]:
    """Notes the attributes of a model's modules, parameters and buffers apart; returns what brings them back.

    What stands in lists, tuples and dictionaries counts; tensors that are written in place do not.
    """
    kept = [(module, _attributes(module)) for module in model.modules()]

    def restore() -> None:
        for module, attributes in kept:
            for name in _attributes(module).keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)

    return restore


def _attributes(module: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in module.__dict__.items() if name not in _OF_EVERY_MODULE}
    return tree_map(_same, own)  # copies of the containers, the same leaves


def _same(leaf: Any) -> Any:
    return leaf
