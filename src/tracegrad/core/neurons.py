"""What counts as a neuron."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Neuron = TypeVar("Neuron", bound=type[nn.Module])

_NEURONS: set[type[nn.Module]] = set()


def register_neuron(neuron: Neuron) -> Neuron:
    """Tells `attach` that modules of this class, and of its subclasses, are neurons. Also a class decorator.

    A neuron takes currents [T, B, ...], all steps in one call, and returns spikes of the same shape.

    Raises:
        TypeError: not a subclass of nn.Module.
    """
    if not (isinstance(neuron, type) and issubclass(neuron, nn.Module)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a neuron is a subclass of torch.nn.Module, not {neuron!r}")
    _NEURONS.add(neuron)
    return neuron


def is_neuron(module: nn.Module) -> bool:
    """Whether `module` is an instance of a registered neuron class."""
    return isinstance(module, tuple(_NEURONS))


def only_spikes(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a forward hook of neurons that looks at their spikes alone: their input then need not be computed first."""
    hook.__dict__["only_spikes"] = True
    return hook


def reads_only_spikes(neuron: nn.Module) -> bool:
    """Whether every hook on a neuron looks at its spikes alone."""
    # PyTorch lists hooks nowhere else.
    listening = (neuron._forward_pre_hooks, neuron._backward_hooks, neuron._backward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
    hooks = neuron._forward_hooks.values()  # pyright: ignore[reportPrivateUsage]
    return not any(listening) and all(getattr(hook, "only_spikes", False) for hook in hooks)
