"""What counts as a neuron."""

from torch import nn

_NEURONS: set[type[nn.Module]] = set()


def register_neuron(neuron: type[nn.Module]) -> type[nn.Module]:
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
