"""Finds time in a neuron's input: the dimension along which its outputs depend on what came before."""

from tracegrad.core.dependence import Dependence, Draw
from tracegrad.core.neuron_copy import NeuronCopy
from tracegrad.core.time_layout import TimeLayout

_MOST_ROWS = 2048  # to perturb, to find out T

Time = tuple[TimeLayout, int]
"""Where time is, and T."""


def find_time(copy: NeuronCopy, draws: list[Draw], declared: Time) -> Time | None:
    """Where time is in the neuron's inputs; None if outputs depend on nothing elsewhere in them.

    What is declared counts as found where it explains what is seen, and where nothing better can be said.
    """
    shape, layout = draws[0].x.shape, declared[0]
    example_rows = copy.current.shape[0]
    main = 0 if layout.dim is None or layout.folded else layout.dim
    found = {main: Dependence(main, shape)}
    for drawn in draws:
        found[main].add(copy, [drawn])
        folding = found[main].folding(example_rows) if main == 0 else None
        if layout.folded:
            explained = folding == declared
        else:
            explained = layout.dim is not None and folding is None and found[main].influence == "causal"
        if explained:
            return declared
    for dim in set(range(len(shape))) - {main}:
        found[dim] = Dependence(dim, shape).add(copy, draws)
    if found[0].folding(example_rows) is not None:
        few = draws[: max(1, _MOST_ROWS // shape[0])]
        folding = found[0].add(copy, few, every_index=True).folding(example_rows)
        if folding is not None:
            return folding
    return _unfolded_time(found, declared)


def _unfolded_time(found: dict[int, Dependence], declared: Time) -> Time | None:
    layout, time_steps = declared
    influences = {dim: found[dim].influence for dim in sorted(found)}
    if set(influences.values()) == {"none"}:
        return None
    along = None if layout.folded else layout.dim
    causal = [dim for dim, influence in influences.items() if influence == "causal"]
    if causal[:1] == [0] and layout.folded and not found[0].mixes_examples(layout, time_steps):
        return declared  # only later steps of other examples: a threshold, say, that all of them move
    if causal and along not in causal:
        return TimeLayout(causal[0]), len(found[causal[0]].hits)
    examples = 1 if along == 0 else 0
    if along is not None and influences[along] == "none" and influences.get(examples) == "mutual":
        return TimeLayout(examples), len(found[examples].hits)
    return declared
