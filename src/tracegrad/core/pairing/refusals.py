"""What is left unscaled, as a user reads it: one row for each synapse, with the reason."""

from collections import Counter

from torch import Tensor, nn

from tracegrad.core.equations.layers import is_synapse
from tracegrad.core.neurons import is_neuron
from tracegrad.core.pairing.pairs import Pairing
from tracegrad.core.synapses import is_plain, own_parameters, weight_names

_REMEDIES = (
    ("no post-synaptic neuron", "register the neurons behind: tg.register_neuron(YourNeuron)"),
    ("not called", "attach with an example that takes the path of training"),
    ("left out by", "choose other patterns"),
    ("scope=", "attach with scope='all'"),
    ("differ in shape", "choose another relation"),
)
"""What helps against reasons that do not say it themselves."""


def refused_synapses(model: nn.Module, pairing: Pairing) -> list[tuple[str, str]]:
    """(name, reason) of each synapse, and of each matrix of weights, that is left unscaled, in the model's order."""
    rows: list[tuple[str, str]] = []
    for module_name, module in model.named_modules():
        names = [name for name, owner in pairing.owners.items() if owner == module_name]
        for name in names:
            rows += _rows(name, pairing)
        if not names and is_plain(module):
            rows.append((module_name, "not called, or in a way of its own, in the example forward pass"))
            continue
        if isinstance(module, nn.ParameterList | nn.ParameterDict) or ".parametrizations." in f".{module_name}.":
            continue  # listed with the module that they are parts of
        called = weight_names(model, module_name)
        for parameter_name, parameter in own_parameters(module):
            name = called[parameter_name]
            if is_matrix(parameter) and name not in names and id(parameter) not in pairing.used_parameters:
                rows.append((name, _why_unknown(module)))
    return list(dict.fromkeys(rows))


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter may be the weight of a synapse: it varies along two dimensions at least."""
    return sum(size > 1 for size in parameter.shape) > 1


def _rows(name: str, pairing: Pairing) -> list[tuple[str, str]]:
    calls = pairing.calls[name]
    reasons = {call: pairing.refused[name, call] for call in range(calls) if (name, call) in pairing.refused}
    if len(reasons) == calls and len(set(reasons.values())) == 1:
        return [(name, reasons[0])]
    by_reason: dict[str, list[int]] = {}
    for call, reason in reasons.items():
        by_reason.setdefault(reason, []).append(call + 1)
    return [(name, f"{_calls(numbers)} of {calls}: {reason}") for reason, numbers in by_reason.items()]


def _calls(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"call {numbers[0]}"
    if len(numbers) > 3 and len(numbers) == numbers[-1] - numbers[0] + 1:
        return f"calls {numbers[0]} to {numbers[-1]}"
    shown = [*map(str, numbers[:5]), *(["..."] if len(numbers) > 5 else [])]
    return f"calls {', '.join(shown)}"


def _why_unknown(module: nn.Module) -> str:
    kind = type(module).__name__
    if is_synapse(module):
        return f"{kind} computes its current in a way that is not known (F.conv2d, F.linear, @, ... of its weight are)"
    if type(module).__module__.startswith("torch.nn."):
        return f"{kind} is not supported; convolutions and linear layers are"
    if is_neuron(module):
        return f"the neuron {kind} uses it in a way that is not known (F.linear, F.conv2d, @, ... are)"
    return f"{kind} did not use it in a way that is known (F.linear, F.conv2d, @, ...) in the example forward pass"


def why_nothing_is_paired(skipped: list[tuple[str, str]]) -> str:
    """The error where no synapse can be scaled: the commonest reason and what helps."""
    message = "no synapse can be scaled, so that training would be the baseline's (allow_empty=True if that is meant)"
    if not skipped:
        return f"{message}: the model used no convolution or linear layer in the example forward pass"
    reasons = [reason for _, reason in skipped]
    kind, count = Counter(reason.partition(":")[0] for reason in reasons).most_common(1)[0]
    reason = Counter(reason for reason in reasons if reason.startswith(kind)).most_common(1)[0][0]
    remedy = next((f"; {remedy}" for part, remedy in _REMEDIES if part in reason), "")
    return f"{message}. {count} of {len(skipped)} synapses: {reason}{remedy}"
