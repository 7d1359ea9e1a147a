"""Whether spikes drive a synapse: what its input is made of, and the reason if that is not spikes."""

import torch
from torch import Tensor, nn

from tracegrad.core.equations.layers import is_synapse
from tracegrad.core.neurons import is_neuron, why_excluded
from tracegrad.core.pairing.example import ExampleRun, SeenSynapse
from tracegrad.core.pairing.graph import Use, ends, kind_of, operation_of, sources_of_spikes
from tracegrad.core.pairing.operations import NORMS
from tracegrad.core.torch_internals import Node, inputs_of


def refuse_inputs(run: ExampleRun, spiking_input: bool) -> dict[Use, str | None]:
    """For each call of a synapse, why its input is not made of spikes; None if it is.

    Args:
        run: the example forward pass.
        spiking_input: the example's tensors, and constants made in the model, may be spikes too.
    """
    return {use: _refuse_input(run, use, seen, spiking_input) for use, seen in run.synapses.items()}


def neurons_before(run: ExampleRun, use: Use) -> list[Use]:
    """The calls of neurons whose spikes a call of a synapse gets."""
    source = run.synapses[use].source
    found = sources_of_spikes(source) if source is not None else ()
    return [node.use for node in found if kind_of(node) == "spikes"]


def data_before(run: ExampleRun, use: Use) -> list[Tensor]:
    """The tensors of the example that a call of a synapse gets."""
    source = run.synapses[use].source
    found = sources_of_spikes(source) if source is not None else ()
    return [run.data[node] for node in found if node in run.data]


def has_one_height(x: Tensor) -> bool:
    """Whether all values are 0 or one and the same other number."""
    values = x.detach()[x.detach() != 0]
    return not values.numel() or bool((values == values[0]).all())


def _refuse_input(run: ExampleRun, use: Use, seen: SeenSynapse, spiking_input: bool) -> str | None:
    if seen.inside is not None and gets_own_spikes(run, use, seen):
        return None
    if seen.source is None:
        return _refuse_constant(seen.call.x, spiking_input)
    for node in sources_of_spikes(seen.source):
        reason = _refuse_source(run, node, seen, spiking_input)
        if reason:
            return f"no pre-synaptic spikes: {reason}"
    return None


def _refuse_constant(x: Tensor, spiking_input: bool) -> str | None:
    if not x.any():  # spikes that are silent, such as a recurrent synapse gets before the first step
        return None
    if not has_one_height(x):
        return "no pre-synaptic spikes: its input is a constant"
    hint = "a constant of 0 and one height (spiking_input=True if these are spikes)"
    return None if spiking_input else f"no pre-synaptic spikes: its input is {hint}"


def _refuse_source(run: ExampleRun, node: Node, seen: SeenSynapse, spiking_input: bool) -> str | None:
    kind = kind_of(node)
    if kind == "spikes":
        return None
    if kind == "current":
        return f"its input is, in part, the current of {node.use[0]}"
    if kind == "input":
        if node.use != seen.inside:
            return f"its input is, in part, the input of neuron {node.use[0]}"
        outside = (source for child, *_ in inputs_of(node) for source in sources_of_spikes(child))
        return next(filter(None, (_refuse_source(run, each, seen, spiking_input) for each in outside)), None)
    if node in run.data:
        if not spiking_input:
            return "its input is the data (spiking_input=True if these are spikes)"
        return None if has_one_height(run.data[node]) else "its input is data with values other than 0 and one height"
    if not node.next_functions:
        return "a parameter is mixed into its input"
    current = next((each for each in ends(node) if kind_of(each) == "current"), None)
    if current is not None and operation_of(node) in NORMS:
        return f"its input is, in part, the current of {current.use[0]}"
    return f"its input has passed {operation_of(node)}{_made_in(run, node)}, which does not keep spikes"


def _made_in(run: ExampleRun, node: Node) -> str:
    """Where a node was made, if in a module that may be a neuron nobody registered."""
    for name in reversed(run.modules_around(node)):
        module = run.model.get_submodule(name)
        excluded = why_excluded(module)
        if excluded:
            return f" in {name} ({type(module).__name__} {excluded})"
        bases = [base for base in type(module).__mro__ if base is not nn.Module]
        is_known = any(base.__module__.startswith("torch.nn.modules") for base in bases)
        if not is_known and not any(is_synapse(part) or is_neuron(part) for part in module.modules()):
            return f" in {name} (tg.register_neuron({type(module).__name__}) if that is a neuron)"
    return ""


def gets_own_spikes(run: ExampleRun, use: Use, seen: SeenSynapse) -> bool:
    """Whether a synapse inside a neuron gets what that fired at the step before, zeros at the first one."""
    assert seen.inside is not None  # noqa: S101 - asked by the caller
    name, call = seen.inside
    neuron = run.neurons[seen.inside]
    if neuron.layout.dim is None:
        before = run.neurons.get((name, call - 1))
        expected = None if before is None else before.spikes
    else:
        inside = [each for each, other in run.synapses.items() if each[0] == use[0] and other.inside == seen.inside]
        step = inside.index(use)
        if step >= neuron.time_steps or not neuron.spikes.any():  # of silence it can't be seen whose it is
            return False
        expected = neuron.layout.split(neuron.spikes, neuron.time_steps)[step - 1] if step else None
    x = seen.call.x
    if expected is None:
        return not x.any()
    return x.numel() == expected.numel() and torch.equal(x.flatten(), expected.detach().flatten().to(x.dtype))
