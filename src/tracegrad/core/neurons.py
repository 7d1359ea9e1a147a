"""What counts as a neuron, and how each kind of neuron is called."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from tracegrad.core.time_layout import SINGLE_STEP, TimeLayout

Class = TypeVar("Class", bound=type[nn.Module])
Folded = int | Callable[[nn.Module, Tensor], int] | None
"""T of a neuron whose input is folded: a number, or a function of the neuron and its input."""


@dataclass(frozen=True)
class Convention:
    """How the neurons of one class are called.

    Each takes its current as the first argument, and returns its spikes, or a tuple that starts with them.

    Attributes:
        step: whether one call of this neuron is one step, [B, ...], not all of them.
        state: the name of its state: that of an argument, of an attribute, or of both; None if it keeps none.
        reset: what a user calls to start a sequence.
        time_dim: where time is in the input and output of a neuron that takes all steps at once.
        folded: T where time is folded into the batch, else None.
        graded: whether its spikes may have several heights.
    """

    step: Callable[[nn.Module], bool]
    state: str | None
    reset: str
    time_dim: int = 0
    folded: Folded = None
    graded: bool = False

    def time_of(self, neuron: nn.Module, x: Tensor) -> tuple[TimeLayout, int]:
        """Where time is in the neuron's input or output `x`, and T."""
        if self.step(neuron):
            return SINGLE_STEP, 1
        if self.folded is None:
            return TimeLayout(self.time_dim), x.shape[self.time_dim]
        time_steps = self.folded if isinstance(self.folded, int) else int(self.folded(neuron, x))
        return TimeLayout(self.time_dim, folded=True), time_steps


_CONVENTIONS: dict[type[nn.Module], Convention | None] = {}
_EXCLUDED: dict[type, str] = {}
_ADAPTERS: dict[str, Callable[[], object]] = {}


def register_neuron(
    neuron: Class,
    *,
    step: bool | Callable[[nn.Module], bool] = False,
    state: str | None = None,
    reset: str = "its reset",
    time_dim: int = 0,
    folded: Folded = None,
    graded: bool = False,
) -> Class:
    """Tells `attach` that modules of this class, and of its subclasses, are neurons. Also a class decorator.

    A neuron takes currents as its first argument and returns spikes of the same shape, or a tuple that starts with
    them: all steps [T, B, ...] in one call, or one step [B, ...] a call. `attach` checks what is declared here on a
    copy of the neuron.

    A neuron that is called step by step keeps a state from one call to the next. The spike traces last as long as it
    does: a sequence starts at a call that finds no state there (None, no tensor, another shape) or another one than
    the last call left behind, such as zeros after a reset. A detached state goes on.

    Registering a class again replaces its declaration.

    Args:
        neuron: a subclass of `torch.nn.Module`.
        step: whether one call is one step; a function if that depends on the neuron.
        state: the name of the state: of the attribute that holds it, of the argument of `forward` that it is given
            in, or of both; what is given counts first. Where there is no such attribute, the state that a call leaves
            behind is what it returns after the spikes.
        reset: what a user calls to start a sequence; errors about a forgotten reset name it.
        time_dim: the dimension of time in the neuron's input and output: 0 for [T, B, ...], 1 for [B, T, ...], -1 for
            time last. The synapse before it may see time elsewhere.
        folded: T, or a function (neuron, input) -> T, where time is folded into the batch: [T * B, ...] with
            `time_dim=0`, [B * T, ...] with `time_dim=1`.
        graded: the spikes may have several heights, or signs; their values enter the traces as they are.

    Example:
        tg.register_neuron(snntorch.Leaky, step=True, state="mem")

    Raises:
        TypeError: not a subclass of nn.Module.
        ValueError: a neuron that is called step by step, and no name of its state or a dimension of time; a folded
            one whose time_dim is neither 0 nor 1, or whose T is less than 1.
    """
    if not (isinstance(neuron, type) and issubclass(neuron, nn.Module)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a neuron is a subclass of torch.nn.Module, not {neuron!r}")
    if step and state is None:
        raise ValueError(f"{neuron.__name__} is called step by step: state='...' must name its state")
    if step is True and (time_dim != 0 or folded is not None):
        raise ValueError(
            f"{neuron.__name__} is called step by step, so there is no time in its input: leave out time_dim and folded"
        )
    if isinstance(folded, int) and folded < 1:
        raise ValueError(f"folded is the T of {neuron.__name__}, 1 or more, not {folded}")
    if folded is not None and time_dim not in (0, 1):
        raise ValueError(
            f"time_dim of {neuron.__name__} must be 0 for [T * B, ...] or 1 for [B * T, ...], not {time_dim}"
        )
    is_step = step if callable(step) else _always if step else _never
    _CONVENTIONS[neuron] = Convention(is_step, state, reset, time_dim, folded, graded)
    return neuron


def _always(_: nn.Module) -> bool:
    return True


def _never(_: nn.Module) -> bool:
    return False


def exclude_neuron(module: type[nn.Module], reason: str) -> None:
    """Tells `attach` that modules of this class are no neurons, though a base class of theirs is registered as one.

    Args:
        module: the class.
        reason: what they do instead, such as "does not fire".
    """
    _CONVENTIONS[module] = None
    _EXCLUDED[module] = reason


def why_excluded(module: nn.Module) -> str | None:
    """What a module does that looks like a neuron and is none; None for others."""
    return next((_EXCLUDED[base] for base in type(module).__mro__ if base in _EXCLUDED), None)


def register_adapter(package: str, load: Callable[[], object]) -> None:
    """Has `load` called, to register the neurons of a package, once a model with a class of that package is seen."""
    _ADAPTERS[package] = load


def convention_of(module: nn.Module) -> Convention | None:
    """How `module` is called, if it is an instance of a registered neuron class."""
    bases = cast(list[type], type(module).__mro__)
    for package in {base.__module__.partition(".")[0] for base in bases} & _ADAPTERS.keys():
        _ADAPTERS.pop(package)()
    return next((_CONVENTIONS[base] for base in bases if base in _CONVENTIONS), None)


def time_of(neuron: nn.Module, x: Tensor) -> tuple[TimeLayout, int]:
    """Where time is in the input or the spikes `x` of a registered neuron, and T."""
    convention = convention_of(neuron)
    if convention is None:
        raise TypeError(f"{type(neuron).__name__} is not registered: tg.register_neuron({type(neuron).__name__})")
    return convention.time_of(neuron, x)


def is_neuron(module: nn.Module) -> bool:
    """Whether `module` is an instance of a registered neuron class."""
    return convention_of(module) is not None


def steps_one_by_one(module: nn.Module) -> bool:
    """Whether `module` is a neuron one call of which is one step."""
    convention = convention_of(module)
    return convention is not None and convention.step(module)


def keeps_state(module: nn.Module) -> bool:
    """Whether `module` is a neuron that keeps a state from call to call, or is given one."""
    convention = convention_of(module)
    return convention is not None and convention.state is not None


def reset_of(neuron: nn.Module) -> str:
    """What a user calls to start a sequence of a registered neuron."""
    convention = convention_of(neuron)
    return convention.reset if convention else "its reset"


def current_of(neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    """The current in what a neuron is called with: the first parameter of its `forward`, by position or keyword."""
    return arguments[0] if arguments else keywords[_first_parameter(neuron)]


def with_current(
    neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], current: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a neuron is called with, with another current in it."""
    if arguments:
        return (current, *arguments[1:]), keywords
    return arguments, keywords | {_first_parameter(neuron): current}


def _first_parameter(neuron: nn.Module) -> str:
    return next(iter(signature(neuron.forward).parameters))


def spikes_of(output: Any) -> Tensor:
    """The spikes in what a neuron returned."""
    return output[0] if isinstance(output, tuple) else output


def with_spikes(output: Any, spikes: Tensor) -> Any:
    """What a neuron returned, with other spikes in it."""
    return (spikes, *output[1:]) if isinstance(output, tuple) else spikes


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
