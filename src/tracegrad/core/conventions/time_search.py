"""Finds time in a neuron's input: the dimension along which its outputs depend on what came before."""

from tracegrad.core.conventions.dependence import Dependence, Draw, order_matters
from tracegrad.core.conventions.neuron_copy import NeuronCopy
from tracegrad.core.time_layout import Time, TimeLayout


def find_time(copy: NeuronCopy, draws: list[Draw], declared: Time) -> Time | None:
    """Where time is in the neuron's inputs; None if outputs depend on nothing elsewhere in them.

    What is declared counts as found where it explains what is seen, and where nothing better does.
    """
    shape, layout = draws[0].x.shape, declared[0]
    example_rows = copy.current.shape[0]
    main = 0 if layout.dim is None or layout.folded else layout.dim
    found = {main: Dependence(main, shape)}
    for drawn in draws:
        folding = _folding(found[main].add(copy, [drawn]), declared, example_rows)
        if layout.folded:
            explained = folding == declared and found[main].is_telling
        else:
            explained = layout.dim is not None and folding is None and found[main].influence == "causal"
        if explained:
            return declared
    rows = found.setdefault(0, Dependence(0, shape))
    if main != 0:
        rows.add(copy, draws)
    if rows.is_telling and _folding(rows, declared, example_rows) is not None:
        folding = _folding(rows.add_all(copy, draws), declared, example_rows)
        if folding is not None:
            return folding
    for dim in set(range(1, len(shape))) - {main}:
        found[dim] = Dependence(dim, shape).add(copy, draws)
    return _unfolded_time(copy, draws, found, declared)


def _folding(rows: Dependence, declared: Time, example_rows: int) -> Time | None:
    """How steps and examples are folded, if they are: as is declared, where that can be, but for a smaller T."""
    foldings = rows.foldings(example_rows) if rows.dim == 0 else []
    if declared in foldings:
        foldings = [(layout, steps) for layout, steps in foldings if layout == declared[0]]
    return foldings[0] if foldings else None


def _unfolded_time(copy: NeuronCopy, draws: list[Draw], found: dict[int, Dependence], declared: Time) -> Time | None:
    layout, _ = declared
    influences = {dim: found[dim].influence for dim in sorted(found)}
    if set(influences.values()) == {"none"}:
        return None
    along = None if layout.folded else layout.dim
    causal = [dim for dim, influence in influences.items() if influence == "causal"]
    if causal[:1] == [0] and layout.folded and not found[0].mixes_examples(declared):
        return declared  # later steps of other examples alone: a threshold, say, that all of them move
    if causal and along not in causal:
        return TimeLayout(causal[0]), len(found[causal[0]].hits)
    if along is None or influences[along] == "none":
        # A parallel neuron depends on later steps too. Examples can change places, its steps cannot.
        examples = 1 if along == 0 else 0
        if influences.get(examples) == "mutual" and order_matters(copy, draws, examples):
            return TimeLayout(examples), len(found[examples].hits)
    return declared
