"""Summaries over runs, and paired differences between methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Summary:
    """Several runs in three numbers.

    Args:
        mean: their mean.
        maximum: the largest.
        deviation: standard deviation of the sample (n - 1); NaN for a single run.
    """

    mean: float
    maximum: float
    deviation: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, maximum and standard deviation of one value per run.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("there is nothing to summarize: no run is complete")
    return Summary(fmean(values), max(values), stdev(values) if len(values) > 1 else math.nan)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its confidence interval.

    Args:
        mean: mean of value - baseline over the pairs.
        low: lower end of the interval; NaN for a single pair.
        high: upper end.
        pairs: number of pairs.
    """

    mean: float
    low: float
    high: float
    pairs: int


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Difference:
    """The mean difference of pairs with its t interval: mean +- t * s / sqrt(n), n - 1 degrees of freedom.

    Args:
        values: one per pair.
        baseline: the other one of each pair, in the same order.
        confidence: probability with which the interval covers the true mean, for normal differences.

    Raises:
        ValueError: no pairs, or not as many values as baselines.
    """
    if not values or len(values) != len(baseline):
        raise ValueError(f"{len(values)} values and {len(baseline)} baselines make no pairs")
    differences = [value - reference for value, reference in zip(values, baseline, strict=True)]
    mean, pairs = fmean(differences), len(differences)
    if pairs == 1:
        return Difference(mean, math.nan, math.nan, pairs)
    margin = float(student_t.ppf((1 + confidence) / 2, pairs - 1)) * stdev(differences) / math.sqrt(pairs)
    return Difference(mean, mean - margin, mean + margin, pairs)
