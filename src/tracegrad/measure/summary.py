"""What diagnoses of several networks have in common: means and ranges over synapses and networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tracegrad.measure.diagnosis import ALL, NUMBERS, OF_RULES, DiagnosedRule, Diagnosis, cell, cells_of, csv_of

Pair = tuple[DiagnosedRule, DiagnosedRule]
SUMMARIZED = tuple(name for name in NUMBERS if name not in ("angle_q05", "angle_q95"))
"""The quantiles over filters are a range of their own."""


class Spread(NamedTuple):
    """A mean, and the least and the largest value; NaN where there is none."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of the numbers that there are."""
        known = [value for value in values if not math.isnan(value)]
        return cls(sum(known) / len(known), min(known), max(known)) if known else cls(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Summary:
    """What diagnoses say of a rule, over synapses and networks, each with the same weight.

    Attributes:
        rule: which.
        alpha: its strength.
        numbers: by the names in `SUMMARIZED`.
    """

    rule: DiagnosedRule
    alpha: float
    numbers: dict[str, Spread]


def summarize(diagnoses: Sequence[Diagnosis]) -> list[Summary]:
    """One for each rule and alpha."""
    found: dict[tuple[DiagnosedRule, float], list[dict[str, float]]] = {}
    for finding in (each for diagnosis in diagnoses for each in diagnosis.findings):
        if finding.synapse != ALL:
            found.setdefault((finding.rule, finding.alpha), []).append(finding.numbers)
    return [
        Summary(rule, alpha, {name: Spread.of(numbers[name] for numbers in synapses) for name in SUMMARIZED})
        for (rule, alpha), synapses in found.items()
    ]


def agreements(diagnoses: Sequence[Diagnosis]) -> dict[Pair, Spread]:
    """r^2 between the relations of two rules, over networks."""
    pairs = list(dict.fromkeys(pair for each in diagnoses for pair in each.agreement))
    return {pair: Spread.of(each.agreement.get(pair, math.nan) for each in diagnoses) for pair in pairs}


def summary_csv(summaries: Sequence[Summary]) -> str:
    """A row each; of each number its mean, the least and the largest value."""
    titles = [title for name in SUMMARIZED for title in (name, f"{name}_min", f"{name}_max")]
    rows = [
        (*cells_of(each.rule, each.alpha), *(cell(value) for spread in each.numbers.values() for value in spread))
        for each in summaries
    ]
    return csv_of([(*OF_RULES, *titles), *rows])


def agreement_csv(agreement: Mapping[Pair, Spread]) -> str:
    """r^2 between rules, a row for each two."""
    rows = [(str(a), str(b), *map(cell, spread)) for (a, b), spread in agreement.items()]
    return csv_of([("rule", "other", "r2", "r2_min", "r2_max"), *rows])
