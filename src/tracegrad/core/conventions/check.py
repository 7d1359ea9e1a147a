"""Whether neurons do what was declared of them: where time is in their input, and that they return spikes."""

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tracegrad.core.conventions.declaration import Declaration
from tracegrad.core.conventions.dependence import Draw, changed, draw
from tracegrad.core.conventions.neuron_copy import NeuronCopy, copies_of, resized
from tracegrad.core.conventions.spike_heights import are_spikes
from tracegrad.core.conventions.time_search import find_time
from tracegrad.core.neurons import convention_of, current_of
from tracegrad.core.time_layout import SINGLE_STEP, Time

_OF_EVERY_MODULE = nn.Module().__dict__.keys() - {"training"}


def check_convention(name: str, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Checks on a copy of a registered neuron that it does what was declared of it.

    The copy is called on random inputs of several scales, since its threshold is unknown. Values at one index of a
    dimension are replaced, and the outputs compared: time is where outputs depend on what came before.

    - A neuron whose outputs depend on earlier values along the declared dimension, and on no later ones, is right.
      What else they depend on, through lateral inhibition or norms, is its own affair.
    - Otherwise time is the dimension along which they depend on earlier values alone, if there is one. A parallel
      neuron, which depends on later ones too, is right along the declared dimension. If it mixes examples instead, it
      is told from a norm by their order, which matters.
    - A neuron whose outputs depend on nothing else in its input has no memory (leak 0), and is right with any
      declaration: its traces run along the declared dimension. But one call of it is one step if they depend on its
      last call.
    - Nothing can be seen of a neuron that is silent, or saturated, for every input, or whose memory is so faint that
      hardly an output changes; it is right.

    Spikes are 0 or of one positive height, which may differ between features.

    What a neuron holds that cannot be copied, such as a lock, is shared with the copy. A neuron that can't be copied
    all the same, or raises in the copy for the example's own values too, is not checked; nor are tracegrad's own.

    Args:
        name: of the neuron in its model.
        neuron: a registered one; it is left as it is.
        arguments: of a call that worked.
        keywords: of that call.

    Raises:
        ValueError: it does something else; the message says which declaration would be right.
    """
    convention = convention_of(neuron)
    if convention is None or type(neuron).__module__.partition(".")[0] == "tracegrad":
        return
    current: Any = current_of(neuron, arguments, keywords)
    if not (isinstance(current, Tensor) and current.is_floating_point() and current.dim() and current.numel()):
        return
    for copy in copies_of(neuron, arguments, keywords):
        declaration = Declaration(name, copy.neuron, convention, copy.current)
        shape = _accepted_shape(declaration, copy)
        if shape is not None:
            draws, spikes = draw(copy, shape)
            if draws and _is_repeatable(copy, draws[0]):
                _check_time(declaration, copy, draws)
            declaration.check_input()
            if not convention.graded:
                _check_spikes(declaration, copy, draws, spikes)
            return
    Declaration(name, neuron, convention, current).check_input()


class ConventionChecks:
    """The checks of a model's neurons. What holds for one holds for others of the same class, options and shapes."""

    def __init__(self) -> None:
        self._passed: set[Hashable] = set()

    def check(self, name: str, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """`check_convention`, unless it has passed for such a neuron and such a call.

        Raises:
            ValueError: as `check_convention`.
        """
        kind = tuple(_kind(neuron)), tuple(_kind_of_value(leaf) for leaf in tree_leaves((arguments, keywords)))
        if kind not in self._passed:
            check_convention(name, neuron, arguments, keywords)
            self._passed.add(kind)


def _kind(neuron: nn.Module) -> Iterator[Hashable]:
    """Everything that a neuron holds, but of tensors only shape and precision."""
    for name, module in neuron.named_modules():
        yield name, type(module)
        own = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        for key, value in (own | tensors).items():
            yield key, *map(_kind_of_value, tree_leaves(value))


def _kind_of_value(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    known = isinstance(value, bool | int | float | str | None)
    return value if known else id(getattr(value, "__func__", value))  # bound methods are new objects each time


def _accepted_shape(declaration: Declaration, copy: NeuronCopy) -> tuple[int, ...] | None:
    """The first shape of inputs that the neuron takes, and that can have time in the declared place."""
    possible = declaration.time_in(copy.current) is not None
    for shape in dict.fromkeys(_shapes(*copy.current.shape)):
        x = resized(copy.current, shape)
        if copy.spikes(x) is not None and not (possible and declaration.time_in(x) is None):
            return shape
    return None


def _shapes(rows: int, *features: int) -> Iterator[tuple[int, ...]]:
    """Shapes of inputs, the best first; neurons may insist on a number of features, or of steps.

    A few indices in each dimension, in case it is time, and no more than needed. Twice the rows of the example are
    two examples at least, where steps and examples are folded in them.
    """
    even = min(32, max(4, int(512 ** (1 / max(1, len(features))))))
    small = [min(max(size, 3), 8) for size in features]
    for first in (2 * rows if rows > 1 else 4, rows):
        yield first, *(even for _ in features)
        yield first, *small
        yield first, *features[:-2], *small[-2:]
        yield first, *features


def _is_repeatable(copy: NeuronCopy, drawn: Draw) -> bool:
    """Whether the neuron fires the same spikes again; not if its random numbers are not PyTorch's."""
    again = copy.spikes(drawn.x)
    return again is not None and not bool(changed(drawn.spikes, again).any())


def _check_time(declaration: Declaration, copy: NeuronCopy, draws: list[Draw]) -> None:
    declared = declaration.time_in(draws[0].x) or (SINGLE_STEP, 1)
    found = find_time(copy, draws, declared)
    if found is not None and found != declared:
        raise declaration.elsewhere(found)
    if found is not None or declared[0] == SINGLE_STEP:
        return
    for drawn in draws:
        calls = copy.two_calls(drawn.x)
        if calls is not None and bool(changed(*calls[:2]).any()):
            state = declaration.convention.state or calls[2] or "..."
            raise ValueError(
                f"{declaration} is declared as {declaration.said}, but its outputs depend on its last call, and on "
                "nothing that came before in its input: there is no time in it, one call is one step: declare "
                + declaration.registration(step=True, state=state)
            )


def _check_spikes(declaration: Declaration, copy: NeuronCopy, draws: list[Draw], spikes: list[Tensor]) -> None:
    time = declaration.time_in(spikes[0]) if spikes else None
    if time is None or are_spikes(spikes, time):
        return
    values = next((each for each in spikes if not are_spikes([each], time)), torch.stack(spikes))
    low, high = float(values.min()), float(values.max())
    place = _place_of_spikes([copy.output(drawn.x) for drawn in draws], spikes[0].shape, time)
    if place is None:
        right = (
            "make it fire (surrogate functions do with spiking=True), or declare "
            f"{declaration.as_graded()} if its spikes are graded"
        )
    else:
        right = f"return the spikes first; they are element {place} of the tuple that it returns"
    raise ValueError(
        f"{declaration} returns values from {low:.3g} to {high:.3g}, but spikes are 0 or of one positive height: "
        + right
    )


def _place_of_spikes(outputs: list[Any], shape: torch.Size, time: Time) -> int | None:
    """Which element of the tuples that a neuron returned is spikes."""
    if not all(isinstance(output, tuple) for output in outputs):
        return None
    for place, values in enumerate(zip(*outputs, strict=True)):
        fit = all(isinstance(each, Tensor) and each.shape == shape for each in values)
        if fit and are_spikes(values, time):
            return place
    return None
