"""Where a sequence starts: a neuron's state tells whether a call goes on with the last one."""

from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tracegrad.core.neurons import convention_of, current_of, time_of


class StateWatch:
    """Watches the state of one neuron from call to call.

    Args:
        neuron: a registered one whose state has a name.
    """

    def __init__(self, neuron: nn.Module) -> None:
        convention = convention_of(neuron)
        self._name = (convention and convention.state) or ""
        self._is_argument = self._name in signature(type(neuron).forward).parameters
        self._left: list[tuple[Tensor, int]] = []

    def before(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor]:
        """The state that the coming call, of one step, goes on with; empty where it starts a sequence."""
        state = self._found(neuron, arguments, keywords)
        if len(state) != len(self._left):
            return []
        goes_on = all(_goes_on(x, *left) for x, left in zip(state, self._left, strict=True))
        return state if goes_on else []

    def carried_over(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        """Whether the coming call, of all steps, goes on with the state of another one."""
        state = self._found(neuron, arguments, keywords)
        return any(bool(x.any()) for x in state)

    def _found(self, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor]:
        """The state that the coming call finds."""
        given = None
        if self._is_argument:
            given = signature(type(neuron).forward).bind(neuron, *arguments, **keywords).arguments.get(self._name)
        state = _tensors(getattr(neuron, self._name, None) if given is None else given)
        current = current_of(neuron, arguments, keywords)
        layout, time_steps = time_of(neuron, current)
        step = layout.split(current, time_steps)[0]
        return [] if _is_hidden_of_another_shape(given, state, step) else state

    def after(self, neuron: nn.Module, output: Any) -> None:
        """Notes the state that a call left behind."""
        self._note(getattr(neuron, self._name, output[1:] if isinstance(output, tuple) else None))

    def note_held(self, neuron: nn.Module) -> None:
        """Notes the state that the neuron holds, as if a call had left it behind; zeros are none."""
        held = getattr(neuron, self._name, None)
        self._note(held if any(bool(x.any()) for x in _tensors(held)) else None)

    def _note(self, left: Any) -> None:
        state = _tensors(left)
        self._left = [(x.detach(), _version(x)) for x in state]  # an alias: its memory is not given to another state


def _tensors(state: Any) -> list[Tensor]:
    """The tensors in a state; one without elements, snnTorch's before its first call, is none."""
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.numel()]


def _is_hidden_of_another_shape(given: Any, state: list[Tensor], current: Tensor) -> bool:
    """A neuron that holds its state itself begins anew where another batch arrives."""
    return given is None and any(x.dim() == current.dim() and x.shape != current.shape for x in state)


def _goes_on(state: Tensor, left: Tensor, version: int) -> bool:
    """Whether a state is the one that the last call left behind: itself, detached, or a copy that is not zero."""
    if state.shape != left.shape or state.device != left.device or state.dtype != left.dtype:
        return False
    if state.data_ptr() == left.data_ptr():
        return _version(state) == version or bool(state.any())  # zeroed in place: a reset
    return bool((state == left).all() and state.any())


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version
