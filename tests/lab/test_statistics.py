import math

import pytest

from tracegrad.lab.statistics import paired_difference, summarize


def test_summary_by_hand():
    summary = summarize([2.0, 4.0, 9.0])
    assert summary.mean == 5.0
    assert summary.maximum == 9.0
    assert summary.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))


def test_one_run_has_no_deviation():
    summary = summarize([3.0])
    assert (summary.mean, summary.maximum) == (3.0, 3.0)
    assert math.isnan(summary.deviation)


def test_interval_by_hand():
    # differences 1, 2, 3, 6: mean 3, s^2 = 14 / 3; t(0.975, 3 degrees of freedom) = 3.182446, from a printed table
    difference = paired_difference([2, 4, 6, 10], [1, 2, 3, 4])
    margin = 3.182446 * math.sqrt(14 / 3 / 4)
    assert difference.mean == 3.0
    assert difference.low == pytest.approx(3 - margin, abs=1e-5)
    assert difference.high == pytest.approx(3 + margin, abs=1e-5)
    assert difference.pairs == 4


def test_confidence_widens_the_interval():
    narrow, wide = (paired_difference([1, 2, 4], [0, 0, 0], confidence) for confidence in (0.9, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_pairs_matter():
    values, baseline = [1.0, 5.0, 9.0], [0.0, 4.0, 8.0]
    assert paired_difference(values, baseline).low == pytest.approx(1.0)  # every pair differs by exactly 1
    assert paired_difference(values, baseline[::-1]).low < 0


def test_one_pair_has_no_interval():
    difference = paired_difference([3.0], [1.0])
    assert difference.mean == 2.0
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_makes_no_pairs_is_an_error(values, baseline):
    with pytest.raises(ValueError, match="make no pairs"):
        paired_difference(values, baseline)


def test_nothing_to_summarize_is_an_error():
    with pytest.raises(ValueError, match="nothing to summarize"):
        summarize([])
