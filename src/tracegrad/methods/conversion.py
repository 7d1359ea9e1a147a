"""What every conversion of a trained network into a spiking one needs: time, and modules that replace others."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tracegrad.snn.norms import TEBatchNorm2d


class Folded(nn.Module):
    """A neuron in a network that knows no time: [T * B, ...] -> [T * B, ...], time folded into the batch, time first.

    Args:
        neuron: currents [T, B, ...] -> spikes [T, B, ...].
        time_steps: T.
    """

    def __init__(self, neuron: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.neuron = neuron
        self.time_steps = time_steps

    def forward(self, currents: Tensor) -> Tensor:
        """Currents [T * B, ...] to spikes of the same shape."""
        return self.neuron(currents.unflatten(0, (self.time_steps, -1))).flatten(0, 1)


class Repeated(nn.Module):
    """Shows an input to a network that knows no time, at each of T steps: [B, ...] -> outputs [T, B, ...].

    Args:
        network: [T * B, ...] -> [T * B, ...], whose neurons are `Folded`.
        time_steps: T.
    """

    def __init__(self, network: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.network = network
        self.time_steps = time_steps

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, ...] to the outputs [T, B, ...] at every step."""
        repeated = images.expand(self.time_steps, *images.shape).flatten(0, 1)
        return self.network(repeated).unflatten(0, (self.time_steps, -1))


def knows_time(network: nn.Module) -> bool:
    """Whether a network shows its input for `network.time_steps` steps itself, and gives its neurons [T, B, ...]."""
    return isinstance(getattr(network, "time_steps", None), int)


def check_time_steps(time_steps: int) -> None:
    """Raises ValueError if T is below 1."""
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, not {time_steps}")


def over_time(network: nn.Module, time_steps: int) -> nn.Module:
    """The network for T steps: `network.time_steps` is set if it has one, else the network is `Repeated`.

    Args:
        network: is changed.
        time_steps: T.
    """
    if not knows_time(network):
        return Repeated(network, time_steps)
    network.__dict__["time_steps"] = time_steps
    for norm in network.modules():
        if isinstance(norm, TEBatchNorm2d) and len(norm.step_scale) == 1:
            norm.step_scale = nn.Parameter(norm.step_scale.detach().repeat(time_steps))
    return network


def replace(network: nn.Module, module: nn.Module, replacement: nn.Module) -> None:
    """Replaces a module of a network under all of its names.

    Args:
        network: is changed; contains the module and is not the module itself.
        module: is replaced.
        replacement: takes its place.
    """
    names = [name for name, each in network.named_modules(remove_duplicate=False) if each is module]
    for name in names:
        network.set_submodule(name, replacement)


def exchange(
    network: nn.Module, kinds: tuple[type[nn.Module], ...], make: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Replaces every module of some classes by make(module); a module that is used twice stays one module.

    Args:
        network: is changed.
        kinds: the classes of the modules that are replaced.
        make: gives a module's replacement.

    Returns:
        The network, or its replacement.
    """
    for module in [module for module in network.modules() if isinstance(module, kinds)]:
        if module is network:
            return make(module)
        replace(network, module, make(module))
    return network


_AVERAGES: dict[type[nn.Module], Callable[..., nn.Module]] = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d}
_ADAPTIVE_AVERAGES: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
}
MAX_POOLS = (*_AVERAGES, *_ADAPTIVE_AVERAGES)
"""The classes that `average_of` takes."""


def average_of(pool: nn.Module) -> nn.Module:
    """The average pool of the same windows as a max pool; padding is left out of the average.

    Raises:
        ValueError: a dilated max pool; no average pool has its windows.
    """
    for kind, average in _ADAPTIVE_AVERAGES.items():
        if isinstance(pool, kind):
            return average(pool.output_size)
    if not isinstance(pool, nn.MaxPool1d | nn.MaxPool2d):
        raise TypeError(f"a max pool is one of {', '.join(kind.__name__ for kind in MAX_POOLS)}, not {pool!r}")
    if torch.as_tensor(pool.dilation).ne(1).any():
        raise ValueError(f"a max pool with dilation={pool.dilation} has no average pool of the same windows")
    average = _AVERAGES[nn.MaxPool1d if isinstance(pool, nn.MaxPool1d) else nn.MaxPool2d]
    return average(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, count_include_pad=False)
