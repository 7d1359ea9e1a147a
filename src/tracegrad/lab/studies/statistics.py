"""What the runs of a study support: summaries, paired differences, tests, and the seeds that are needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 10_000


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
    """The mean of paired differences, its t interval, and two tests that it is 0.

    Args:
        mean: mean of value - baseline over the pairs.
        low: lower end of the interval; NaN for a single pair.
        high: upper end.
        pairs: number of pairs.
        p: of the paired t test, two-sided; NaN for a single pair.
        p_flips: of the sign-flip permutation test, two-sided: the share of the 2^n ways to choose the signs of the
            differences whose mean is as far from 0; NaN for a single pair.
        deviation: standard deviation of the differences; NaN for a single pair.
    """

    mean: float
    low: float
    high: float
    pairs: int
    p: float = math.nan
    p_flips: float = math.nan
    deviation: float = math.nan

    @property
    def smallest_p(self) -> float:
        """The smallest `p_flips` that this number of pairs can give, 2 / 2^n."""
        return 2.0 ** (1 - self.pairs)

    @property
    def smallest_seen(self) -> float:
        """The smallest difference that a t test of as many pairs of this deviation sees with a probability of 80 %."""
        if not self.deviation > 0:
            return self.deviation

        def missing(effect: float) -> float:
            return _power(effect, self.deviation, self.pairs) - POWER

        return cast(float, brentq(missing, 0, 100 * self.deviation))


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """The mean difference of pairs with its t interval, mean +- t * s / sqrt(n) with n - 1 degrees of freedom.

    Args:
        values: one per pair.
        baseline: the other one of each pair, in the same order.
        confidence: probability with which the interval covers the true mean, for normal differences.

    Raises:
        ValueError: no pairs, or not as many values as baselines.
    """
    if not values or len(values) != len(baseline):
        raise ValueError(f"{len(values)} values and {len(baseline)} baselines make no pairs")
    differences = np.subtract(values, baseline)
    mean, pairs = float(differences.mean()), len(differences)
    if pairs == 1:
        return Difference(mean, math.nan, math.nan, pairs)
    if np.ptp(differences) == 0:  # no spread: certain, as far as the runs can tell
        return Difference(mean, mean, mean, pairs, float(mean == 0), sign_flips(differences), 0.0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of differences that are nearly equal
        test: Any = stats.ttest_rel(values, baseline)
        interval = test.confidence_interval(confidence)
    ends, deviation = (float(interval.low), float(interval.high)), float(differences.std(ddof=1))
    return Difference(mean, *ends, pairs, float(test.pvalue), sign_flips(differences), deviation)


def sign_flips(differences: Sequence[float] | NDArray[Any]) -> float:
    """The p of the sign-flip permutation test of paired differences: exact up to 16 of them, from 2^16 draws beyond.

    If the methods are the same, each difference could as well have had the other sign.
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count <= 16:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        drawn = 1 - 2 * np.random.default_rng(0).integers(0, 2, (2**16 - 1, count))
        signs = np.vstack([np.ones((1, count)), drawn])
    means = np.abs(signs @ values)
    return float((means >= np.abs(values.sum()) * (1 - 1e-14)).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: p values of several comparisons, so that any false claim among them has the level's chance.

    Adjusted in ascending order, (m - i) p_i, and never below the one before; at most 1. NaN stays NaN and is none of
    the comparisons.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = sorted((index for index, p in enumerate(ps) if not math.isnan(p)), key=lambda index: ps[index])
    adjusted, highest = [math.nan] * len(ps), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min((len(order) - place) * ps[index], 1.0))
        adjusted[index] = highest
    return adjusted


def non_inferiority(values: Sequence[float], baseline: Sequence[float], margin: float) -> float:
    """The p of "not worse than the baseline by `margin` or more": a one-sided paired t test against -margin.

    Raises:
        ValueError: fewer than two pairs, or a margin that is not above 0.
    """
    return _one_sided(values, baseline, margin, "greater")


def equivalence(values: Sequence[float], baseline: Sequence[float], margin: float) -> float:
    """The p of "differs from the baseline by less than `margin`": the larger of two one-sided paired t tests.

    Raises:
        ValueError: as `non_inferiority`.

    Source: D. J. Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680.
    """
    return max(non_inferiority(values, baseline, margin), _one_sided(values, baseline, margin, "less"))


def _one_sided(values: Sequence[float], baseline: Sequence[float], margin: float, side: str) -> float:
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0 and finite, not {margin}")
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(f"{len(values)} values and {len(baseline)} baselines are no two pairs or more")
    against = -margin if side == "greater" else margin
    test: Any = stats.ttest_1samp(np.subtract(values, baseline), against, alternative=side)
    return float(test.pvalue)


def crossed_bootstrap(
    right: NDArray[Any], baseline: NDArray[Any], draws: int = 4000, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of a difference in accuracy over both seeds and test images, which are resampled independently.

    Args:
        right: [seeds, images], whether each run classified each image right.
        baseline: the same of the other method, seed by seed and image by image.
        draws: of seeds and of images, with replacement.
        confidence: of the interval from quantile to quantile.

    Returns:
        Its ends, as shares from -1 to 1.

    Raises:
        ValueError: the shapes differ, or there is nothing in them.

    Source: A. B. Owen, Annals of Applied Statistics 1 (2007) 386-411.
    """
    if right.shape != baseline.shape or right.ndim != 2 or not right.size:
        raise ValueError(f"results of shape {right.shape} and {baseline.shape} make no pairs of [seeds, images]")
    difference = right.astype(float) - baseline.astype(float)
    seeds, images = difference.shape
    random, means = np.random.default_rng(0), np.empty(draws)
    for draw in range(draws):
        of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds))
        of_images = np.bincount(random.integers(0, images, images), minlength=images)
        means[draw] = of_seeds @ difference @ of_images / difference.size
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def upper_deviation(deviation: float, pairs: int, share: float = 0.8) -> float:
    """The limit under which the true standard deviation lies with this probability: s sqrt((n - 1) / chi2).

    A deviation of few pairs is as often too small as too large, and a study sized by it misses what it looks for.
    """
    return deviation * math.sqrt((pairs - 1) / float(stats.chi2.ppf(1 - share, pairs - 1)))


def seeds_needed(deviation: float, effect: float, comparisons: int = 1) -> int | None:
    """The fewest pairs with which a paired t test sees a difference with a probability of 80 %.

    Args:
        deviation: of the paired differences.
        effect: the difference, in the same unit.
        comparisons: in the study; the level is 5 % divided by them, as Holm's correction has it for the smallest p.

    Returns:
        The number; None beyond 10,000.

    Raises:
        ValueError: no effect.
    """
    if not 0 < effect < math.inf:
        raise ValueError(f"the difference to see must be above 0 and finite, not {effect}")
    for pairs in range(2, MOST_SEEDS + 1):
        if _power(effect, deviation, pairs, comparisons) >= POWER:
            return pairs
    return None


def _power(effect: float, deviation: float, pairs: int, comparisons: int = 1) -> float:
    """The probability with which a two-sided paired t test sees an effect."""
    limit = float(stats.t.ppf(1 - (1 - CONFIDENCE) / comparisons / 2, pairs - 1))
    shift = effect * math.sqrt(pairs) / deviation if deviation else math.inf
    return float(stats.nct.sf(limit, pairs - 1, shift)) if shift < 30 else 1.0
