"""What has passed a model's synapses and neurons, and the relation of that, in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import reference
from contract.cases import Case
from contract.library import over_time


@contextmanager
def inputs_and_spikes(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Of every call, by the name of the module: the input of a layer, the spikes of a neuron."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, is_neuron: bool):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            found.setdefault(name, []).append((first if is_neuron else inputs[0]).detach())

        return hook

    handles = []
    for name, module in model.network.named_children():
        handles.append(module.register_forward_hook(keep(f"network.{name}", name.startswith("neuron"))))
    yield found
    for handle in handles:
        handle.remove()


def relation_of(
    case: Case, model: nn.Module, seen: dict[str, list[Tensor]], pair: tuple[str, str], time: str, time_steps: int
) -> Tensor:
    """R_hat of a pair of which both ends were seen, in loops."""
    synapse, neuron = pair
    library, module = case.library, model.get_submodule(synapse)
    inside = case.layout.replace(" ", "*") if library.layers is nn else case.layout
    ends = []
    for name, layout in ((synapse, inside), (neuron, case.layout)):
        x = torch.stack(seen[name]) if case.way != "at-once" else over_time(seen[name][0], layout, time_steps)
        ends.append(x.double())
    weights = [module.weight] * time_steps
    raw = reference.Call(weights, ends[0], {nn.Identity(): ends[1]}).relations(module, "positive")
    if time == "per_step":
        return torch.stack([reference.normalise(r, "max") for r in raw])
    return reference.normalise(raw[-1] if time == "final" else sum(raw), "max")
