"""What a case's gradients must be: the network in plain PyTorch, its neurons called step by step, in the reference."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

import reference
from contract.cases import Case
from contract.library import Library
from contract.models import Model


class Looped(nn.Module):
    """The library's neuron on [T, B, ...], step by step; `cut` detaches its state in the middle."""

    def __init__(self, neuron: nn.Module, library: Library, cut: bool) -> None:
        super().__init__()
        self.neuron, self.library, self.cut = neuron, library, cut

    def forward(self, currents: Tensor) -> Tensor:
        self.fire, spikes = self.library.begin(self), []
        for step, current in enumerate(currents):
            if self.cut and step == len(currents) // 2:
                self.library.detach(self)
            spikes.append(self.fire(self.neuron, current))
        return torch.stack(spikes)


class NormOfEachStep(nn.BatchNorm2d):
    """A norm of [T * B, ...] with the statistics of each step alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(NormOfEachStep, self).forward(step) for step in x.chunk(self.time_steps)])


def truth(
    case: Case,
    model: Model,
    x: Tensor,
    *,
    cut: bool = False,
    neuron: Callable[[Tensor], Tensor] | None = None,
    **method: Any,
) -> reference.Result:
    """The scaled gradients of the model, which is left as it is.

    Args:
        case: that built the model.
        model: without scaling attached.
        x: [T, B, ...].
        cut: for truncated back-propagation in two halves.
        neuron: its equations, [T, B, ...] -> [T, B, ...]; the library's own neurons if None.
        method: the options of `attach`.
    """
    result = reference.run(twin(case, model, len(x), cut), x, neuron=neuron, **method)
    result.gradients = {name.replace(".neuron.", "."): gradient for name, gradient in result.gradients.items()}
    result.gradients["input"] = result.input_gradient
    return result


def twin(case: Case, model: Model, time_steps: int, cut: bool = False) -> nn.Module:
    """The network in plain PyTorch, with the same weights and neurons."""
    plain = model.network.plain().double().train(model.training)
    for name, module in model.network.named_children():
        if name.startswith("neuron"):
            setattr(plain, name, Looped(deepcopy(module), case.library, cut))
        else:
            plain.get_submodule(name).load_state_dict(module.state_dict())
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d) and case.way != "at-once":
            norm.__class__, norm.time_steps = NormOfEachStep, time_steps
    return plain
