"""Cases: a network of a library's neurons, and the way in which it is called."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from contract.libraries import LIBRARIES
from contract.library import Library, lay, over_time
from contract.models import WAYS, Model, ways_of
from contract.networks import NETWORKS
from reference import loss_of

TIMES = ("per_step", "mean", "final")
WHOLE = ("at-once", "loop-inside")
"""The ways in which one call of the model is a sequence."""
every_time = pytest.mark.parametrize("time", TIMES)


@dataclass(frozen=True)
class Case:
    """One network of one kind of neuron, called in one way; tensors outside of the model are [T, B, ...]."""

    library: Library
    neuron: str
    way: str
    network: str

    @property
    def kind(self) -> Any:
        """The class of the network."""
        return NETWORKS[self.network]

    @property
    def layout(self) -> str:
        """Of the model's input and output."""
        return self.library.layout or "T B"

    def build(self) -> Model:
        """The model, in float64, with norms that let every layer fire."""
        torch.manual_seed(0)
        network = self.kind(self.library.layers, self.library.neurons[self.neuron]).double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.8, 1.6)
                nn.init.uniform_(module.bias, 0.1, 0.5)
        return WAYS[self.way](network, self.library)

    def frames(self, time_steps: int | None = None, batch: int = 3, seed: int = 1) -> Tensor:
        """An input [T, B, ...]: real numbers, or spikes for a network that takes those."""
        shape = (time_steps or self.library.time_steps, batch, *self.kind.frame)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (x > 0).double() if self.kind.spiking_input else x

    def example(self, model: nn.Module) -> Tensor:
        """An input that is smaller than `frames`, where that is possible."""
        example = self.library.example(self.frames()).to(next(model.parameters()).dtype)
        return example[0] if self.way == "loop-outside" else lay(example, self.layout)

    def attach(self, model: nn.Module, **options: Any) -> tg.Attachment:
        """Attaches with that example."""
        return tg.attach(model, self.example(model), spiking_input=self.kind.spiking_input, **options)

    def outputs(self, model: nn.Module, x: Tensor, begin: bool = True) -> Tensor:
        """All steps of a new sequence, or (`begin=False`) of one that goes on."""
        if begin:
            getattr(model, "_orig_mod", model).begin()
        if self.way == "loop-outside":
            return torch.stack([model(frame) for frame in x])
        return over_time(model(lay(x, self.layout)), self.layout, len(x))

    def gradients(self, model: nn.Module, x: Tensor, begin: bool = True) -> dict[str, Tensor]:
        """Of all parameters that train, and under "input" that of x."""
        model.zero_grad()
        x = x.detach().clone().requires_grad_()
        loss_of(self.outputs(model, x, begin).to(x.dtype)).backward()
        return grads(model) | {"input": x.grad}

    def __str__(self) -> str:
        return "-".join((str(self.library), self.neuron, self.way, self.network))


def grads(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter that trains, by its name in the network."""
    return {
        name.removeprefix("_orig_mod.").removeprefix("network."): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def is_further_neuron(case: Case) -> bool:
    """Whether another neuron of the library passes the same check."""
    return case.neuron != next(iter(case.library.neurons))


def is_convolutional(case: Case) -> bool:
    """Whether the network is the one that adds little to the residual one."""
    return case.network == "convolutional"


def is_both(case: Case) -> bool:
    """Whether it is a further neuron in the convolutional network."""
    return is_further_neuron(case) and is_convolutional(case)


def is_of_other_libraries_than(*names: str) -> Callable[[Case], bool]:
    """Whether another library shows the same in less time."""
    return lambda case: str(case.library) not in names


def cases(
    check: str,
    *,
    ways: Iterable[str] = WAYS,
    networks: Iterable[str] = ("convolutional", "residual"),
    all_neurons: bool = False,
    slow: Callable[[Case], bool] = is_convolutional,
) -> pytest.MarkDecorator:
    """Runs a test on all libraries to which a check applies, on their first neuron or on `all_neurons`.

    The cases that are `slow` run with the slow tests.
    """
    found = []
    for library in LIBRARIES:
        skips = [pytest.mark.skip(library.skips[check])] if check in library.skips else []
        neurons = list(library.neurons)[: None if all_neurons else 1]
        for neuron, way, network in product(neurons, ways_of(library), networks):
            case = Case(library, neuron, way, network)
            marks = skips + ([pytest.mark.slow] if slow(case) else [])
            found += [pytest.param(case, id=str(case), marks=marks)] if way in ways else []
    return pytest.mark.parametrize("case", found)
