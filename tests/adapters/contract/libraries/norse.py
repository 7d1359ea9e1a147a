"""Norse: cells that are called once per step, and modules that take all steps."""

from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional.lif_refrac import LIFRefracParameters
from norse.torch.functional.reset import reset_subtract
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from contract.library import OF_PASSED_STATES, Fire, Library


class _Passing:
    """The states are passed to the neurons and come back from them; None starts a sequence."""

    def __init__(self, time: bool) -> None:
        self.time, self.states = time, {}

    def __call__(self, neuron: nn.Module, current: Tensor) -> Tensor:
        spikes, self.states[neuron] = neuron(current[None] if self.time else current, self.states.get(neuron))
        return (spikes[0] if self.time else spikes).to(current.dtype)


def parameters(kind: type, **others: Any) -> Any:
    """Fast dynamics, a low threshold, and a smooth surrogate: spikes and gradients within few steps."""
    tau = {"tau_mem_inv": torch.tensor(500.0), "v_th": torch.tensor(0.3), "alpha": torch.tensor(1.0)}
    return kind(**(tau | others))


lif = parameters(norse.LIFParameters, method="super")
box = parameters(norse.LIFBoxParameters, method="super")


class _Norse(Library):
    time_steps = 8  # a neuron with a synaptic current answers one step later
    skips = OF_PASSED_STATES

    def begin(self, network: nn.Module) -> Fire:
        return _Passing(time=self.layout is not None)

    def detach(self, model: nn.Module) -> None:
        states = model.fire.states
        states.update({neuron: tree_map(Tensor.detach, state) for neuron, state in states.items()})


class NorseCells(_Norse):
    neurons = {
        "LIFBoxCell": lambda: norse.LIFBoxCell(box),
        "LIFBoxCell-soft": lambda: norse.LIFBoxCell(box._replace(reset_method=reset_subtract)),
        "LIFCell": lambda: norse.LIFCell(lif),
        "LIFRefracCell": lambda: norse.LIFRefracCell(LIFRefracParameters(lif, torch.tensor(1))),
    }
    reset = "it without a state"


class Norse(_Norse):
    neurons = {"LIF": lambda: norse.LIF(lif)}
    layout = "T B"
    skips = OF_PASSED_STATES | {"forgotten reset": "a call without a state starts a sequence"}
