import math
import random

import pytest
from tracegrad_benchmark.intervals import growth_exponent, median_of, paired_ratio


def test_median_of_thirty_lies_between_the_tenth_smallest_and_the_tenth_largest():
    values = list(range(1, 31))
    random.Random(0).shuffle(values)
    found = median_of(values)
    assert (found.value, found.low, found.high) == (15.5, 10, 21)  # tables of the sign test, n = 30


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (9, 2, 8), (10, 2, 9), (20, 6, 15)])
def test_interval_of_few_values(count, low, high):
    found = median_of(range(1, count + 1))
    assert (found.low, found.high) == (low, high)


def test_five_values_have_a_median_and_no_interval():
    found = median_of([5, 1, 4, 2, 3])
    assert found.value == 3
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_interval_covers_the_true_median_as_often_as_it_says():
    draw = random.Random(1)
    found = [median_of([draw.expovariate(1) for _ in range(12)]) for _ in range(2000)]
    covered = sum(each.low <= math.log(2) <= each.high for each in found) / len(found)
    assert 0.94 < covered < 0.985  # 0.961 by the binomial distribution


def test_ratio_is_paired_before_the_median_is_taken():
    # A machine that becomes three times slower after half of the rounds changes no ratio.
    reference = [1.0] * 5 + [3.0] * 5
    found = paired_ratio([1.5 * each for each in reference], reference)
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians():
    assert paired_ratio([1, 4, 9], [1, 2, 1]).value == 2
    assert paired_ratio([1, 8, 9], [1, 1, 9]).value == 1


def test_no_pairs():
    with pytest.raises(ValueError, match="2 values and 1 references make no pairs"):
        paired_ratio([1, 2], [1])
    with pytest.raises(ValueError, match="no median of no values"):
        median_of([])


@pytest.mark.parametrize("exponent", [0.5, 1, 2])
def test_exponent_of_a_power_law(exponent):
    assert growth_exponent({size: 3 * size**exponent for size in (1, 2, 4, 8)}) == pytest.approx(exponent)
