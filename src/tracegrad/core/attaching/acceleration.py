"""Event kernels on any network, without gradient scaling."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import check_model
from tracegrad.core.equations.functional import SynapseCall
from tracegrad.core.equations.spike_sums import spiking_current
from tracegrad.core.pairing.example import SeenSynapse, run_example
from tracegrad.core.synapses import install_gates, remove_gate
from tracegrad.core.unpicklable import Unpicklable
from tracegrad.events.choice import Way, mode


class Acceleration:
    """Event kernels on a model: which layers they may serve, and which not and why.

    Attributes:
        synapses: the names of the layers whose input is spikes.
        skipped: (name, reason) of the others.
    """

    def __init__(self, model: nn.Module, synapses: dict[str, Way], skipped: list[tuple[str, str]]) -> None:
        self.synapses = list(synapses)
        self.skipped = skipped
        self._taken = synapses
        self._model = model
        self._gated: list[nn.Module] = []

    def install(self, owners: dict[str, str], watched: frozenset[str]) -> None:
        """Puts the gates in place."""
        gate = _EventGate(self._taken)
        self._gated = install_gates(self._model, map(owners.__getitem__, self.synapses), watched, lambda: gate)

    def detach(self) -> None:
        """Takes the event kernels off; the model is as it was before. Calling it again does nothing."""
        for module in self._gated:
            remove_gate(module)
        self._gated.clear()

    def __str__(self) -> str:
        rows = [(name, str(way)) for name, way in self._taken.items()]
        rows += [(name, f"- {reason}") for name, reason in self.skipped]
        width = max([len(name) for name, _ in rows], default=0)
        header = f"event kernels for {len(self.synapses)} of {len(rows)} synapses"
        return "\n".join([header, "", *(f"{name:<{width}}  {way}" for name, way in rows)])


def accelerate(
    model: nn.Module, example_input: Tensor | tuple[Any, ...] = (), *, example_kwargs: dict[str, Any] | None = None
) -> Acceleration:
    """Lets the event kernels compute, from now on, what `model` does with spikes, in training and inference on CPUs.

    Every convolution and linear layer whose input is 0 or 1 in one example forward pass, which leaves the model as it
    is, sums over spikes where that is faster (`TRACEGRAD_EVENTS` as for `attach`), and keeps bits for the backward
    pass. Currents and all gradients are the same but for rounding; there are no gradients of gradients. On GPUs nothing
    changes.

    Args:
        model: any module that `attach` takes. The networks of `tracegrad.models` take the event kernels by themselves,
            and so does any network with gradient scaling attached.
        example_input: what `model` is called with, one tensor or a tuple of arguments; a batch of one is enough.
        example_kwargs: the keyword arguments that `model` is called with.

    Returns:
        The acceleration: which layers it serves, and `detach()`. Printed, it says what each took in its last call.

    Raises:
        ValueError: a model without neurons, with gradient scaling or an acceleration attached, a lazy or compiled
            module, or none of its layers gets spikes.
    """
    check_model(model)
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    run = run_example(model, arguments, example_kwargs or {})
    calls: dict[str, list[SeenSynapse]] = {}
    for (name, _), seen in run.synapses.items():
        calls.setdefault(name, []).append(seen)
    taken, skipped = dict[str, Way](), list[tuple[str, str]]()
    for name, seen in calls.items():
        reason = _why_not(seen)
        if reason is None:
            spikes = torch.cat([each.call.x.flatten() for each in seen])
            taken[name] = Way(float(spikes.mean(dtype=torch.float32)))
        else:
            skipped.append((name, reason))
    acceleration = Acceleration(model, taken, skipped)
    if not taken:
        raise ValueError(f"no layer of this model gets spikes that the event kernels serve\n\n{acceleration}")
    if any(each.call.x.device.type != "cpu" for seen in calls.values() for each in seen):
        warnings.warn("the event kernels serve CPUs; elsewhere an accelerated model computes as before", stacklevel=2)
    acceleration.install(run.owners, run.watched)
    return acceleration


def _why_not(seen: list[SeenSynapse]) -> str | None:
    for each in seen:
        if each.call.geometry.window(each.call.x.dim()) is None:
            return "no convolution of images or linear layer without groups and dilation"
        x = each.call.x
        if bool(((x != 0) & (x != 1)).any()):
            return "its input is not spikes"
    return None


class _EventGate(Unpicklable):
    """Computes the currents of the layers that get spikes."""

    def __init__(self, taken: dict[str, Way]) -> None:
        self.taken = taken

    def __call__(self, name: str, call: SynapseCall) -> Tensor:
        """The synaptic current."""
        if name not in self.taken:
            return call.geometry.current(call.x, call.weight, call.bias)
        current, way = spiking_current(call.geometry, call.x, call.weight, call.bias, mode())
        if way is not None:
            self.taken[name] = way
        return current
