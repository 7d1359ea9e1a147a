"""Medians, their intervals and ratios, without assumptions on how times are distributed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

from scipy.stats import binom


@dataclass(frozen=True)
class Median:
    """A median and its confidence interval.

    Args:
        value: the median.
        low: lower end of the interval; NaN for fewer values than an interval takes (6 for 95 %).
        high: upper end.
    """

    value: float
    low: float
    high: float


def median_of(values: Sequence[float], confidence: float = 0.95) -> Median:
    """The median, with the interval between two order statistics that covers the true median at least so often.

    The number of values below the true median is binomial (n, 1/2): the k-th smallest and the k-th largest enclose it
    unless fewer than k lie on one side.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("there is no median of no values")
    ordered = sorted(values)
    rank = int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    low, high = (ordered[rank - 1], ordered[-rank]) if rank else (math.nan, math.nan)
    return Median(median(ordered), low, high)


def paired_ratio(values: Sequence[float], references: Sequence[float]) -> Median:
    """The median of value / reference over pairs, with its interval.

    Raises:
        ValueError: no pairs, or not as many values as references.
    """
    if len(values) != len(references):
        raise ValueError(f"{len(values)} values and {len(references)} references make no pairs")
    return median_of([value / reference for value, reference in zip(values, references, strict=True)])


def growth_exponent(values: Mapping[int, float]) -> float:
    """The slope p of log value against log size, by least squares: value ~ size^p.

    Args:
        values: by size, two at least.
    """
    return linear_regression([math.log(size) for size in values], [math.log(value) for value in values.values()]).slope
