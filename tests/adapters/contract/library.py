"""What the contract must know about a library of neurons."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Fire = Callable[[nn.Module, Tensor], Tensor]
"""One step: (neuron, current [B, ...]) -> spikes [B, ...]."""


OF_PASSED_STATES = {
    "state from before": "a state that is passed for the first time starts a sequence",
    "another batch": "the caller passes the states, and those of another batch do not fit",
}
"""What does not apply where the caller holds the states: `begin` returns an object that has them in `states`."""

OF_KEPT_STATES = {
    "checkpoint of steps": "a step that is computed anew goes on with the state that the forward pass left behind",
}
"""What does not apply to neurons that keep their states."""


class Library:
    """How the neurons of a library are built and called.

    Attributes:
        neurons: what builds a neuron, by name. All of them must have exact gradients; the first one passes every check.
        layout: where time is in what a neuron takes, if that is all steps in one call: "T B", "B T", or folded, "T*B",
            "B*T". None: it takes one step a call, [B, ...].
        reset: what an error about a forgotten reset says to call, as a regular expression.
        layers: where its convolutions, norms and pools come from: torch.nn, or layers that take time as its neurons do.
        time_steps: T, enough for all layers to fire.
        skips: checks that do not apply, by name, with the reason.
    """

    neurons: Mapping[str, Callable[[], nn.Module]]
    layout: str | None = None
    reset = ""
    layers: Any = nn
    time_steps = 4
    skips: Mapping[str, str] = OF_KEPT_STATES

    def begin(self, network: nn.Module) -> Fire:
        """Starts a sequence: resets the neurons that keep a state. Returns what fires one step."""
        return self.fire

    def fire(self, neuron: nn.Module, current: Tensor) -> Tensor:
        """One step, [B, ...], of a neuron that keeps its state."""
        if self.layout not in ("T B", "B T"):
            return self.call(neuron, current)
        time = self.layout.split().index("T")
        return self.call(neuron, current.unsqueeze(time)).squeeze(time)

    def call(self, neuron: nn.Module, current: Tensor) -> Tensor:
        """The spikes of one call of a neuron."""
        output = neuron(current)
        return (output[0] if isinstance(output, tuple) else output).to(current.dtype)

    def detach(self, model: nn.Module) -> None:
        """Cuts the graph behind the states of all neurons; `model.fire` is what `begin` returned."""
        raise NotImplementedError

    def example(self, x: Tensor) -> Tensor:
        """The part of an input [T, B, ...] that `attach` is shown: other T and B than in training, where allowed."""
        return x[:2, :1]

    def __str__(self) -> str:
        return type(self).__name__


def lay(x: Tensor, layout: str) -> Tensor:
    """[T, B, ...] in another layout."""
    x = x.transpose(0, 1) if layout.startswith("B") else x
    return x.flatten(0, 1) if "*" in layout else x


def over_time(x: Tensor, layout: str, time_steps: int) -> Tensor:
    """[T, B, ...] again: the inverse of `lay`."""
    if "*" in layout:
        x = x.unflatten(0, (-1, time_steps) if layout.startswith("B") else (time_steps, -1))
    return x.transpose(0, 1) if layout.startswith("B") else x
