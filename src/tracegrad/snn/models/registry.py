"""The models that recipes can name."""

from collections.abc import Callable
from typing import Protocol

from torch import nn

from tracegrad.core.registry import Registry

Neuron = Callable[[], nn.Module]
"""A factory of neurons."""


class Builder(Protocol):
    """Builds a model: images [B, C, H, W] or frames [T, B, C, H, W] -> outputs [T, B, classes]."""

    __name__: str

    def __call__(self, num_classes: int, in_channels: int, *, neuron: Neuron | None = None) -> nn.Module:
        """Builds the model; builders take further options of their own."""
        ...


MODELS: Registry[Builder] = Registry("model")


def register_model(builder: Builder) -> Builder:
    """Decorator that makes a builder available under its own name.

    Raises:
        ValueError: the name is taken.
    """
    return MODELS.register(builder.__name__, builder)
