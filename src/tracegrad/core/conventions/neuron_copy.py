"""A copy of a neuron that can be called on any input, and leaves no trace anywhere."""

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tracegrad.core.neurons import convention_of, current_of, spikes_of, with_current

_OF_EVERY_MODULE = nn.Module().__dict__.keys()
_RESETS = ("reset", "reset_state", "reset_states", "reset_mem")


class NeuronCopy:
    """A copy of one neuron, without hooks. Every call finds it as it was, with the same random numbers of PyTorch.

    It starts from a reset and, where the neuron can do without its device, computes on the CPU: there an input that
    an operation refuses is an error, where a CUDA kernel would stop the process. Norms inside use running statistics.

    Args:
        neuron: a copy, as `copies_of` makes them.
        arguments: of a call that is known to work.
        keywords: of that call.

    Attributes:
        neuron: the copy.
        current: in that call.
    """

    def __init__(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.neuron = neuron
        self.current = current_of(neuron, arguments, keywords)
        self._arguments, self._keywords = arguments, keywords
        self._shared = _uncopyable(neuron)

    def spikes(self, x: Tensor) -> Tensor | None:
        """What the neuron fires for the current `x`; None if it refuses it, or returns another shape or NaN."""
        return self._usable(self.output(x), x)

    def output(self, x: Tensor) -> Any:
        """All that the neuron returns for the current `x`; None if it refuses it."""
        with suppress(Exception), _nothing_left_behind(x.device):
            return self._call(self._fresh(), x)
        return None

    def two_calls(self, x: Tensor) -> tuple[Tensor, Tensor, str | None] | None:
        """The spikes of two calls on the same current, and the name of the state that the second one found.

        A state that the first call returns behind its spikes is given to the second. None if the neuron refuses.
        """
        with suppress(Exception):
            neuron = self._fresh()
            before = deepcopy(_tensors(neuron), dict(self._shared))
            with _nothing_left_behind(x.device):
                first = self._call(neuron, x)
            parameters = list(signature(neuron.forward).parameters)
            states = first[1:] if isinstance(first, tuple) else ()
            with _nothing_left_behind(x.device):
                if states and len(states) < len(parameters):
                    second, state = neuron(x, *states), parameters[len(states)]
                else:
                    state = next((k for k, v in _tensors(neuron).items() if not _equal(v, before.get(k))), None)
                    second = self._call(neuron, x)
            spikes = self._usable(first, x), self._usable(second, x)
            return None if spikes[0] is None or spikes[1] is None else (spikes[0], spikes[1], state)
        return None

    def _fresh(self) -> nn.Module:
        return deepcopy(self.neuron, dict(self._shared))

    def _call(self, neuron: nn.Module, x: Tensor) -> Any:
        def fitted(leaf: Any) -> Any:
            """States that were given come in the shape of the current, or of one step of it."""
            if not isinstance(leaf, Tensor) or leaf is current:
                return leaf
            for like, shape in ((self.current.shape, x.shape), (self.current.shape[1:], x.shape[1:])):
                if leaf.shape == like:
                    return resized(leaf, shape)
            return leaf.clone()

        current = x.clone()
        arguments, keywords = with_current(neuron, self._arguments, self._keywords, current)
        arguments, keywords = tree_map(fitted, (arguments, keywords))
        return neuron(*arguments, **keywords)

    def _usable(self, output: Any, x: Tensor) -> Tensor | None:
        spikes: Any = spikes_of(output)
        if not isinstance(spikes, Tensor) or spikes.shape != x.shape or not bool(spikes.isfinite().all()):
            return None
        return spikes.to(x.dtype)


def copies_of(neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[NeuronCopy]:
    """Copies of a neuron for calls like the given one, the first choice first; none if it can't be copied.

    A state that a reset leaves may fit no other input; further copies hold None, or 0, as the state.
    """
    own = current_of(neuron, arguments, keywords).device
    for device in dict.fromkeys((torch.device("cpu"), own)):
        with suppress(Exception):
            copy = _copied(neuron, device)
            given = tree_map(_on(device), (arguments, keywords))
            yield NeuronCopy(copy, *given)
            for state in (None, 0.0) if _states(neuron) else ():
                copy = deepcopy(copy, _uncopyable(copy))
                for name in _states(neuron):
                    setattr(copy, name, state)
                yield NeuronCopy(copy, *given)


def resized(x: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """`x`, cut or repeated along each dimension."""
    for dim, size in enumerate(shape):
        x = x.index_select(dim, torch.arange(size, device=x.device) % x.shape[dim])
    return x


class _Detached(TorchFunctionMode):
    """Makes `deepcopy` take tensors that have a graph, and move all of them; parameters are copied in their own way."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = _on(self._device)(tensor)
        return memo[id(tensor)]


def _on(device: torch.device) -> Callable[[Any], Any]:
    def moved(leaf: Any) -> Any:
        return leaf.detach().to(device, copy=True) if isinstance(leaf, Tensor) else leaf

    return moved


def _copied(neuron: nn.Module, device: torch.device) -> nn.Module:
    # A hook may hold the whole model.
    hooks: dict[int, Any] = {
        id(value): type(value)()
        for module in neuron.modules()
        for name, value in vars(module).items()
        if "hook" in name and name in _OF_EVERY_MODULE and isinstance(value, dict)
    }
    with _Detached(device):
        copy = deepcopy(neuron, hooks | _uncopyable(neuron)).to(device)
    for module in copy.modules():
        if hasattr(module, "running_mean"):
            module.eval()
    for name in _RESETS:
        reset = getattr(copy, name, None)
        if callable(reset):
            with suppress(Exception), _nothing_left_behind(device):
                reset()
    return copy


def _uncopyable(neuron: nn.Module) -> dict[int, Any]:
    """What the neuron holds and cannot be copied, such as locks and files, by id: its copies share it."""
    found: dict[int, Any] = {}
    for module in neuron.modules():
        for name, value in vars(module).items():
            if name not in _OF_EVERY_MODULE and not isinstance(value, bool | int | float | str | Tensor | None):
                try:
                    with _Detached(torch.device("cpu")):
                        deepcopy(value)
                except Exception:
                    found[id(value)] = value
    return found


def _states(neuron: nn.Module) -> list[str]:
    """The attributes that hold a state: the declared one, and tensors that have a graph."""
    convention = convention_of(neuron)
    declared = convention and convention.state
    plain = {name: value for name, value in vars(neuron).items() if isinstance(value, Tensor)}
    return [name for name, value in plain.items() if name == declared or not value.is_leaf]


def _tensors(neuron: nn.Module) -> dict[str, Any]:
    plain = {name: value for name, value in vars(neuron).items() if isinstance(value, Tensor)}
    return plain | dict(neuron.named_buffers())


def _equal(x: Any, y: Any) -> bool:
    return isinstance(y, Tensor) and x.shape == y.shape and bool((x == y).all())


@contextmanager
def _nothing_left_behind(device: torch.device) -> Generator[None]:
    """No graph, no warning, and the random numbers as they were."""
    devices = [device.index] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
