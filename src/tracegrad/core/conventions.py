"""Whether neurons do what was declared of them: where time is in their input, and that they return spikes."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tracegrad.core.dependence import Draw, changed, draw, tolerance
from tracegrad.core.neuron_copy import NeuronCopy, copies_of, resized
from tracegrad.core.neurons import Convention, convention_of, current_of
from tracegrad.core.time_layout import SINGLE_STEP, TIME_FIRST, TimeLayout
from tracegrad.core.time_search import find_time

_OF_EVERY_MODULE = nn.Module().__dict__.keys() - {"training"}


def check_convention(name: str, neuron: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Checks on a copy of a registered neuron that it does what was declared of it.

    The copy is called on random inputs of several scales, since its threshold is unknown. Values at one index of a
    dimension are replaced, and the outputs compared: time is where outputs depend on what came before.

    - A neuron whose outputs depend on earlier values along the declared dimension is right, whatever else they depend
      on: lateral inhibition and norms are its own affair. One that depends on later values too (a parallel neuron) is
      right unless another dimension shows what came before alone.
    - A neuron whose outputs depend on nothing else in its input, nor on its last call, has no memory (leak 0); it is
      right with any declaration: its traces run along the declared dimension.
    - Of a neuron that is silent, or saturated, for every input, nothing can be seen; it is right.

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
    check = _Check(name, neuron, convention)
    check.dimensions(current)
    for copy in copies_of(neuron, arguments, keywords):
        shape = _accepted_shape(copy, convention)
        if shape is not None:
            draws, spikes = draw(copy, shape)
            if draws and _is_repeatable(copy, draws[0]):
                check.time(copy, draws)
            check.spikes(copy, draws, spikes)
            return


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
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def _accepted_shape(copy: NeuronCopy, convention: Convention) -> tuple[int, ...] | None:
    """The first shape of inputs that the neuron takes."""
    for shape in dict.fromkeys(_shapes(*copy.current.shape)):
        x = resized(copy.current, shape)
        if copy.spikes(x) is not None:
            layout, time_steps = convention.time_of(copy.neuron, x)
            if not layout.folded or shape[0] % time_steps == 0:
                return shape
    return None


def _shapes(rows: int, *features: int) -> Iterator[tuple[int, ...]]:
    """Shapes of inputs, the best first: neurons may insist on a number of features, or of steps.

    There are three indices or more in each dimension, in case it is time, and no more than needed. Twice the rows
    are two examples or more where time is folded into them.
    """
    small = [min(max(size, 3), 8) for size in features]
    for first in (2 * rows if rows > 1 else 4, rows):
        yield first, *small
        if len(features) > 2:
            yield first, *features[:-2], *small[-2:]
        yield first, *features


def _is_repeatable(copy: NeuronCopy, drawn: Draw) -> bool:
    """Whether the neuron fires the same spikes again; not if its random numbers are not PyTorch's."""
    again = copy.spikes(drawn.x)
    return again is not None and not bool(changed(drawn.spikes, again).any())


@dataclass(frozen=True)
class _Check:
    """One neuron against its declaration."""

    name: str
    neuron: nn.Module
    convention: Convention

    def __str__(self) -> str:
        return f"neuron {self.name} (class {type(self.neuron).__name__})"

    def dimensions(self, current: Tensor) -> None:
        """Raises where the input has no such dimension, or no such T."""
        shape = list(current.shape)
        if self.convention.step(self.neuron):
            return
        if not -len(shape) <= self.convention.time_dim < len(shape):
            raise ValueError(f"{self} is declared with time_dim={self.convention.time_dim}, but its input is {shape}")
        layout, time_steps = self.convention.time_of(self.neuron, current)
        if layout.folded and (time_steps < 1 or shape[0] % time_steps):
            raise ValueError(
                f"{self} is declared as {layout}, time folded, with T = {time_steps}, but its input is {shape}"
            )

    def time(self, copy: NeuronCopy, draws: list[Draw]) -> None:
        """Raises where time is elsewhere in the inputs."""
        x = draws[0].x
        layout, time_steps = said = self.convention.time_of(copy.neuron, x)
        if layout.folded and time_steps == len(x):
            layout = TIME_FIRST
        elif layout.dim is not None:
            layout = layout._replace(dim=layout.dim % x.dim())
        found = find_time(copy, draws, (layout, time_steps))
        if found is None:
            self._memory(copy, draws)
        elif found != (layout, time_steps):
            where, right = self._place(*found, x.dim())
            raise ValueError(
                f"{self} is declared as {_text(*said)}, but its outputs depend on what came before along {where}, "
                f"time: declare {right}"
            )

    def _memory(self, copy: NeuronCopy, draws: list[Draw]) -> None:
        """Raises where a neuron remembers its last call, and nothing of what came before in its input."""
        if self.convention.step(self.neuron):
            return
        for drawn in draws:
            calls = copy.two_calls(drawn.x)
            if calls is not None and bool(changed(*calls[:2]).any()):
                right = self._registered(step=True, state=self.convention.state or calls[2] or "...")
                raise ValueError(
                    f"{self} is declared as {_text(*self.convention.time_of(copy.neuron, drawn.x))}, but its outputs "
                    "depend on its last call, and on nothing that came before in its input: there is no time in it, "
                    f"a call is one step: declare {right}"
                )

    def _place(self, layout: TimeLayout, time_steps: int, dims: int) -> tuple[str, str]:
        """Where time is, in words, and the declaration."""
        if layout.folded:
            where = f"dimension 0, where steps and examples are folded, {_text(layout, time_steps)}"
            return where, self._registered(folded=time_steps, time_dim=layout.dim)
        last = layout.dim == dims - 1 and dims > 2
        where = f"dimension {layout.dim}{', the last' if last else ''}"
        return where, self._registered(time_dim=-1 if last else layout.dim)

    def _registered(self, **options: Any) -> str:
        """How to register it: as it was, but for where time is."""
        kept = {"state": self.convention.state, "graded": self.convention.graded or None}
        said = ", ".join(f"{key}={value!r}" for key, value in (kept | options).items() if value is not None)
        return f"tg.register_neuron({type(self.neuron).__name__}, {said})"

    def spikes(self, copy: NeuronCopy, draws: list[Draw], spikes: list[Tensor]) -> None:
        """Raises where outputs are not 0 or of one height."""
        if self.convention.graded or not spikes or self._are_spikes(copy, spikes):
            return
        outputs = [copy.output(drawn.x) for drawn in draws]
        others = [output[1:] for output in outputs if isinstance(output, tuple)]
        fires = [
            place
            for place, values in enumerate(zip(*others, strict=True), 1)
            if all(isinstance(each, Tensor) and each.shape == spikes[0].shape for each in values)
            and self._are_spikes(copy, list(values))
        ]
        if fires:
            right = f"return the spikes first, which are output {fires[0]} of its tuple"
        else:
            right = (
                "make it fire (as surrogate functions do with spiking=True) or, if its spikes are graded, declare "
                + self._registered(step=self.convention.step(self.neuron) or None, graded=True)
            )
        low, high = (
            float(getattr(torch.cat([each.flatten() for each in spikes]), which)()) for which in ("min", "max")
        )
        raise ValueError(
            f"{self} returns values between {low:.3g} and {high:.3g} that are not spikes, 0 or of one positive "
            f"height: {right}"
        )

    def _are_spikes(self, copy: NeuronCopy, outputs: list[Tensor]) -> bool:
        """Whether every feature's outputs are 0 or of one positive height."""
        values = torch.cat([self._over_features(copy, each) for each in outputs]).float()
        rounding = tolerance(outputs[0]) * values.abs().amax(0)
        fired = values.abs() > rounding
        lowest = values.masked_fill(~fired, torch.inf).amin(0)
        highest = values.masked_fill(~fired, -torch.inf).amax(0)
        return bool((~fired.any(0) | ((lowest > 0) & (highest - lowest <= rounding))).all())

    def _over_features(self, copy: NeuronCopy, x: Tensor) -> Tensor:
        layout, time_steps = self.convention.time_of(copy.neuron, x)
        return layout.split(x, time_steps).flatten(0, 1)


def _text(layout: TimeLayout, time_steps: int) -> str:
    if layout == SINGLE_STEP:
        return "one step a call, [B, ...] (step=True)"
    return f"{layout} with T = {time_steps}" if layout.folded else str(layout)
