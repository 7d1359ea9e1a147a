"""What `diagnose` found: a row for each rule, at each synapse and at all of them, as tables and sentences."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CONTROLS = ("pre_rate", "post_rate", "rank_one", "other_image", "counts")
ALL = "all"
"""Instead of a synapse: all of them, each with the same weight; filters of all of them in angles."""
OF_RULES = ("apply", "relation", "normalize", "time", "alpha")
SHARES = (*(f"relation_{name}" for name in CONTROLS), *(f"change_{name}" for name in CONTROLS))
NUMBERS = ("angle", "angle_q05", "angle_q95", "reliability", *SHARES)
HEADER = (*OF_RULES, "synapse", *NUMBERS)


@dataclass(frozen=True, order=True)
class DiagnosedRule:
    """A way to scale gradients, but for alpha.

    Attributes:
        apply: "outside" or "event".
        relation: its name.
        normalize: how it is normalised; the mean factor of events has no other normalisation.
        time: how time steps combine.
    """

    apply: str
    relation: str
    normalize: str
    time: str

    def __str__(self) -> str:
        inside = self.apply == "event"
        return f"{self.relation}, inside" if inside else f"{self.relation}, {self.normalize}, {self.time}"


@dataclass(frozen=True)
class Finding:
    """What a rule does at a synapse, as a mean over batches.

    Attributes:
        rule: which.
        alpha: its strength.
        synapse: its name, or "all".
        angle: between a filter's gradient G and its scaled gradient g(G), in degrees: the median over filters.
        angle_range: its quantiles 0.05 and 0.95 over filters.
        reliability: r^2 of the normalised relation between two halves of a batch.
        of_relation: for each control, the share of the relation that it explains: r^2 over weights.
        of_change: for each control, the share of the change that it explains: of the part of g(G) that is at a right
            angle to G, filter by filter, the squared cosine with that of the control. It does not depend on alpha where
            the scaling is linear.
    """

    rule: DiagnosedRule
    alpha: float
    synapse: str
    angle: float
    angle_range: tuple[float, float]
    reliability: float
    of_relation: dict[str, float]
    of_change: dict[str, float]

    @property
    def numbers(self) -> dict[str, float]:
        """By the names in `NUMBERS`; NaN where there is none."""
        shares = (shares.get(name, math.nan) for shares in (self.of_relation, self.of_change) for name in CONTROLS)
        return dict(zip(NUMBERS, (self.angle, *self.angle_range, self.reliability, *shares), strict=True))

    def cells(self) -> tuple[str, ...]:
        """One for each title of `HEADER`; a number that there is not is empty."""
        return (*cells_of(self.rule, self.alpha), self.synapse, *map(cell, self.numbers.values()))

    def __str__(self) -> str:
        """What it comes to, in a sentence."""
        low, high = self.angle_range
        turns = f"{self.rule}, alpha {self.alpha:g}: turns the gradient by {_degrees(self.angle)} degrees"
        known = {
            name: 1 - share["counts"] for name, share in (("relation", self.of_relation), ("change", self.of_change))
        }
        parts = [f"{_percent(known['change'])} of that is timing"]
        if self.rule.apply != "event":
            parts.insert(0, f"{_percent(known['relation'])} of its relation")
        return f"{turns} ({_degrees(low)} to {_degrees(high)} over filters); {' and '.join(parts)}."


@dataclass(frozen=True)
class Diagnosis:
    """What rules do to the gradients of a network.

    Attributes:
        findings: each rule with each alpha, at each synapse and at all of them.
        agreement: r^2 between the normalised relations of two rules of the same time mode; mean over synapses.
        overlap: squared cosine between the changes that any two rules make, as in `Finding.of_change`; mean over
            synapses. With a linear scaling it does not depend on alpha, else it is that of the first one.
    """

    findings: tuple[Finding, ...]
    agreement: dict[tuple[DiagnosedRule, DiagnosedRule], float]
    overlap: dict[tuple[DiagnosedRule, DiagnosedRule], float]

    @property
    def overall(self) -> tuple[Finding, ...]:
        """Those at all synapses together."""
        return tuple(finding for finding in self.findings if finding.synapse == ALL)

    def sentences(self) -> list[str]:
        """One for each rule and alpha."""
        return [str(finding) for finding in self.overall]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Titles and rows for people, of all synapses together."""
        titles = ("rule", "alpha", "angle (degrees)", "of filters", "reliability (r²)")
        explained = [f"relation: {name} (r²)" for name in CONTROLS] + [f"change: {name} (r²)" for name in CONTROLS]
        rows: list[tuple[str, ...]] = []
        for each in self.overall:
            spread = " to ".join(map(_degrees, each.angle_range))
            shares = [each.of_relation[name] for name in CONTROLS] + [each.of_change[name] for name in CONTROLS]
            numbers = (_share(value) for value in (each.reliability, *shares))
            rows.append((str(each.rule), f"{each.alpha:g}", _degrees(each.angle), spread, *numbers))
        return (*titles, *explained), rows

    def markdown(self) -> str:
        """The table, and the sentences under it."""
        titles, rows = self.table()
        lines = [titles, ("---", *["---:"] * (len(titles) - 1)), *rows]
        return "\n".join(
            [*(f"| {' | '.join(line)} |" for line in lines), "", *(f"- {each}" for each in self.sentences())]
        )

    def csv(self) -> str:
        """All findings, a row each."""
        return csv_of([HEADER, *(finding.cells() for finding in self.findings)])

    def agreement_csv(self) -> str:
        """r^2 between rules, a row for each two."""
        rows = [(str(a), str(b), f"{value:.6g}") for (a, b), value in self.agreement.items()]
        return csv_of([("rule", "other", "r2"), *rows])


def cells_of(rule: DiagnosedRule, alpha: float) -> tuple[str, ...]:
    """One for each title of `OF_RULES`."""
    return rule.apply, rule.relation, rule.normalize, rule.time, f"{alpha:g}"


def cell(value: float) -> str:
    """A number in a CSV file; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6g}"


def csv_of(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _degrees(angle: float) -> str:
    return "?" if math.isnan(angle) else _two_digits(angle)


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _percent(share: float) -> str:
    return "an unknown part" if math.isnan(share) else f"{_two_digits(100 * max(share, 0.0))} %"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


class Observations:
    """What was seen in single batches, on its way to a diagnosis."""

    def __init__(self) -> None:
        self._seen: dict[tuple[DiagnosedRule, float], dict[str, list[_Observation]]] = {}
        self._agreement: dict[tuple[DiagnosedRule, DiagnosedRule], list[float]] = {}
        self._overlap: dict[tuple[DiagnosedRule, DiagnosedRule], list[float]] = {}

    def add(
        self,
        rule: DiagnosedRule,
        alpha: float,
        synapse: str,
        angles: Tensor,
        reliability: float,
        of_relation: dict[str, float],
        of_change: dict[str, float],
    ) -> None:
        """What a rule does at one use of a synapse in one batch; `angles` are those of its filters."""
        by_synapse = self._seen.setdefault((rule, alpha), {})
        by_synapse.setdefault(synapse, []).append(_Observation(angles, reliability, of_relation, of_change))

    def agree(self, a: DiagnosedRule, b: DiagnosedRule, r2: float) -> None:
        """How well the relations of two rules agree there."""
        self._agreement.setdefault((a, b), []).append(r2)

    def overlap(self, a: DiagnosedRule, b: DiagnosedRule, share: float) -> None:
        """How far the changes of two rules are the same there."""
        self._overlap.setdefault((a, b), []).append(share)

    def diagnosis(self) -> Diagnosis:
        """The means.

        Raises:
            ValueError: nothing was seen.
        """
        if not self._seen:
            raise ValueError("diagnose needs one batch at least, and one rule")
        findings: list[Finding] = []
        for (rule, alpha), by_synapse in self._seen.items():
            everything = [each for seen in by_synapse.values() for each in seen]
            findings.append(_finding(rule, alpha, ALL, everything))
            findings += [_finding(rule, alpha, synapse, seen) for synapse, seen in by_synapse.items()]
        agreement, overlap = (
            {pair: _mean(values) for pair, values in seen.items()} for seen in (self._agreement, self._overlap)
        )
        return Diagnosis(tuple(findings), agreement, overlap)


@dataclass(frozen=True)
class _Observation:
    angles: Tensor
    reliability: float
    of_relation: dict[str, float]
    of_change: dict[str, float]


def _finding(rule: DiagnosedRule, alpha: float, synapse: str, seen: Sequence[_Observation]) -> Finding:
    angles = torch.cat([each.angles for each in seen])
    low = middle = high = math.nan
    if angles.numel():
        low, middle, high = angles.quantile(angles.new_tensor([0.05, 0.5, 0.95])).tolist()
    of_relation = {name: _mean([each.of_relation.get(name, math.nan) for each in seen]) for name in CONTROLS}
    of_change = {name: _mean([each.of_change.get(name, math.nan) for each in seen]) for name in CONTROLS}
    reliability = _mean([each.reliability for each in seen])
    return Finding(rule, alpha, synapse, middle, (low, high), reliability, of_relation, of_change)


def _mean(values: Sequence[float]) -> float:
    """Of the numbers that there are."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
