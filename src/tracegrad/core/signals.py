"""The signals that a relation correlates: spikes, and their traces over all steps."""

from collections.abc import Callable, Hashable
from typing import Literal

import torch
from torch import Tensor

from tracegrad.core.backward import after_backward_pass, in_backward_pass
from tracegrad.core.compiled import common_order, compiled, in_line, out_of_line, pays
from tracegrad.core.trace import at_least_float32, traces

Signal = Literal["trace", "spikes"]

REMEMBERED = 3
"""So many signals suffice in a residual block: those of its input, of its first neuron and of its second one."""


class SignalReader:
    """Reads signals from spikes [T, ...]; those that it was asked for last are not computed again.

    The trace behind a synapse is the trace before the next one: in one backward pass each is read several times.
    """

    def __init__(self) -> None:
        self._remembered: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def read(self, signal: Signal, spikes: Tensor) -> Tensor:
        """The signal at every step, shaped like the spikes."""
        return self._compute(_trace, spikes) if signal == "trace" else spikes

    def read_last(self, signal: Signal, spikes: Tensor) -> Tensor:
        """The signal at the last step."""
        return self._compute(_last_trace, spikes)[0] if signal == "trace" else spikes[-1]

    def answer(self, pre: Signal, post: Signal, spikes: Tensor) -> Tensor:
        """Y(t): the post-synaptic signal, and what of it is still to come when the pre-synaptic neuron fires."""
        return self._compute(_answer, spikes, pre, post)

    def _compute(self, equations: Callable[..., Tensor], spikes: Tensor, *constants: Signal) -> Tensor:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not in_backward_pass():
            return _over_time(equations, spikes, *constants)  # no addresses there; no graphs are shared
        if not self._remembered:
            after_backward_pass(self._remembered.clear)
        kind = spikes.dtype, spikes.shape, spikes.stride()
        key = equations, constants, spikes.data_ptr(), spikes._version, kind
        # The spikes are kept, too: as long as they are, their memory is not given to others.
        _, result = self._remembered.pop(key, None) or (spikes, _over_time(equations, spikes, *constants))
        self._remembered[key] = spikes, result
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return result


def _over_time(equations: Callable[..., Tensor], spikes: Tensor, *constants: Signal) -> Tensor:
    """Equations for spikes of any layout, compiled where that pays and nobody wants gradients of gradients."""
    order = common_order([spikes]) if pays(spikes.numel()) and not torch.is_grad_enabled() else None
    if order is None:
        return equations(*constants, len(spikes), spikes)
    line = compiled(equations, *constants, len(spikes))(in_line(spikes, order))
    return out_of_line(line, spikes, order)


def _trace(_: int, spikes: Tensor) -> Tensor:
    return torch.stack([step.to(spikes.dtype) for step in traces(_steps(spikes))])


def _last_trace(_: int, spikes: Tensor) -> Tensor:
    return traces(_steps(spikes))[-1].to(spikes.dtype)[None]


def _answer(pre: Signal, post: Signal, _: int, spikes: Tensor) -> Tensor:
    steps = _steps(spikes)
    signal = traces(steps) if post == "trace" else steps
    to_come = traces(signal[::-1])[::-1] if pre == "trace" else signal
    return torch.stack([step.to(spikes.dtype) for step in to_come])


def _steps(spikes: Tensor) -> list[Tensor]:
    """The steps, in float32 at least while a trace is added up."""
    return [step.to(at_least_float32(step)) for step in spikes]
