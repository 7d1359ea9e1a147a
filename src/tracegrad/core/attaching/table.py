"""The table of an attachment, for people."""

from torch import nn

from tracegrad.core.pairing.pairs import Pairing
from tracegrad.core.pairing.refusals import is_matrix
from tracegrad.events.choice import Way


def table(
    model: nn.Module,
    pairing: Pairing,
    pairs: list[tuple[str, str]],
    skipped: list[tuple[str, str]],
    ways: dict[str, Way],
) -> str:
    """What is scaled and what is not, a row each, under a line that says how much of the network that is.

    Args:
        model: that scaling is attached to.
        pairing: its pairs.
        pairs: (synapse, neuron).
        skipped: (synapse, reason).
        ways: what the last call of each synapse took, if there was one.
    """
    scaled = {name for name, _ in pairs if pairing.weights[name].trains}
    synapses = {name for name, _ in (*pairs, *skipped)}
    called = any(map(str, ways.values()))
    rows = [("synapse", "weight", "last call" if called else "", "neuron, or why it is left unscaled")]
    for name, neuron in pairs:
        frozen = "" if name in scaled else " (frozen: not scaled)"
        rows.append((name, _shape(model, pairing, name), str(ways[name]), neuron + frozen))
    rows += [(name, _shape(model, pairing, name), "", f"- {reason}") for name, reason in skipped]
    columns = range(3 if called else 2)
    widths = {column: max(len(row[column]) for row in rows) for column in columns}
    lines = ["  ".join([*(f"{row[column]:<{widths[column]}}" for column in columns), row[3]]) for row in rows]
    weights = sum(pairing.weights[name].shape.numel() for name in scaled)
    all_weights = sum(parameter.numel() for parameter in model.parameters() if is_matrix(parameter))
    macs = sum(pairing.weights[name].macs for name in scaled)
    all_macs = sum(weight.macs for weight in pairing.weights.values())
    shares = f"{_percent(weights, all_weights)} of the weights, {_percent(macs, all_macs)} of the multiply-accumulates"
    header = f"gradient scaling of {len(scaled)} of {len(synapses)} synapses: {shares}"
    return "\n".join([header, "", *lines])


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _shape(model: nn.Module, pairing: Pairing, name: str) -> str:
    if name in pairing.weights:
        return "x".join(map(str, pairing.weights[name].shape)) or "1"
    parameters = dict(model.named_parameters())
    parameter = parameters.get(name, parameters.get(f"{name}.weight"))
    return "" if parameter is None else "x".join(map(str, parameter.shape))
