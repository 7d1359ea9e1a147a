import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tracegrad.lab.studies.statistics import (
    Difference,
    crossed_bootstrap,
    equivalence,
    holm,
    non_inferiority,
    paired_difference,
    seeds_needed,
    sign_flips,
    summarize,
    upper_deviation,
)


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


def test_sign_flips_by_hand():
    # Of the 8 ways to sign 1, 2, 4 the sums are +-7, +-5, +-3, +-1: two of them are as far as 7, four as far as 5.
    assert sign_flips([1, 2, 4]) == 2 / 8
    assert sign_flips([-1, 2, 4]) == 4 / 8
    assert sign_flips([0, 0, 0]) == 1
    assert paired_difference([1, 1, 1, 2], [0, 0, 0, 0]).p_flips == 0.125 == Difference(0, 0, 0, 4).smallest_p


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 1000).map(lambda number: number / 100), min_size=2, max_size=9))
def test_sign_flips_are_scipys_permutation_test(differences):
    zeros = np.zeros(len(differences))
    test = stats.permutation_test(
        (np.array(differences), zeros),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flips(differences) == pytest.approx(test.pvalue)


def test_sign_flips_tell_small_differences_apart():
    assert sign_flips([3.0, 1e-12]) == 0.5
    assert sign_flips([0.1, 0.2, 0.3]) == sign_flips([1, 2, 3]) == 2 / 8  # 0.1 + 0.2 is not quite 0.3


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    found = holm([0.02, math.nan, 0.03])
    assert found[::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(found[1])


def test_equivalence_is_the_worse_of_two_one_sided_tests():
    # differences 0.1, -0.1, 0.2, -0.2: mean 0, s^2 = 0.1 / 3; t = 1 / sqrt(0.1 / 12) = 10.954, 3 degrees of freedom
    values, zeros = [0.1, -0.1, 0.2, -0.2], [0.0] * 4
    expected = stats.t.sf(1 / math.sqrt(0.1 / 12), 3)
    assert equivalence(values, zeros, 1) == pytest.approx(expected)
    assert non_inferiority([value + 5 for value in values], zeros, 1) < expected < 0.05
    assert equivalence([value + 5 for value in values], zeros, 1) > 0.99
    with pytest.raises(ValueError, match="margin must be above 0 and finite, not 0"):
        equivalence(values, zeros, 0)


def test_a_crossed_bootstrap_covers_both_seeds_and_images():
    random = np.random.default_rng(1)
    right = random.random((5, 400)) < 0.9
    low, high = crossed_bootstrap(right, right)
    assert (low, high) == (0, 0)
    worse = right & (random.random((5, 400)) < 0.9)
    low, high = crossed_bootstrap(right, worse)
    assert low < right.mean() - worse.mean() < high
    one_seed_apart = np.zeros((5, 400), bool)
    one_seed_apart[0] = True
    low, high = crossed_bootstrap(one_seed_apart, np.zeros((5, 400), bool))
    assert low == 0  # no draw of that seed
    assert high >= 0.4


def test_the_smallest_difference_seen_is_the_one_whose_seeds_are_these():
    found = paired_difference([0.1, -0.4, 0.9, 1.2, -0.3, 0.6, 0.2, -0.8, 0.5, 0.4], [0.0] * 10)
    assert seeds_needed(found.deviation, found.smallest_seen + 1e-9) == 10
    assert seeds_needed(found.deviation, found.smallest_seen - 1e-3) == 11
    assert paired_difference([1.0, 2.0], [0.0, 1.0]).smallest_seen == 0
    assert math.isnan(paired_difference([1.0], [0.0]).smallest_seen)


def test_seeds_needed_are_those_of_the_noncentral_t():
    # A textbook's power table: effect of one deviation, two-sided 5 %, 80 %: 10 pairs; half a deviation: 34.
    assert seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(1.0, 0.5) == 34
    assert seeds_needed(1.0, 1.0, comparisons=3) > 10
    assert seeds_needed(0.0, 1.0) == 2
    assert seeds_needed(1.0, 1e-6) is None
    assert upper_deviation(1.0, 5) == pytest.approx(math.sqrt(4 / 1.6488), rel=1e-3)  # chi2(0.2, 4), printed table


SIMULATED = 10_000


@pytest.mark.parametrize("seeds", [4, 5, 10])
@pytest.mark.parametrize("comparisons", [1, 3, 6])
def test_claims_where_there_is_no_effect_are_rare_and_intervals_cover_one(seeds, comparisons):
    random = np.random.default_rng([20, seeds, comparisons])
    baseline = random.normal(size=(SIMULATED, 1, seeds))
    differences = random.normal(size=(SIMULATED, comparisons, seeds)) - baseline
    ps = stats.ttest_1samp(differences, 0, axis=-1).pvalue
    claims = sum(min(holm(study)) < 0.05 for study in ps.tolist())
    assert claims / SIMULATED <= 0.057
    sample = range(0, SIMULATED, 100)
    for study in sample:  # ours is that test
        assert paired_difference(differences[study, 0].tolist(), [0.0] * seeds).p == pytest.approx(ps[study, 0])
    if comparisons > 1:
        return
    covered = [
        difference.low <= 0.7 <= difference.high
        for study in range(2000)
        for difference in [paired_difference((differences[study, 0] + 0.7).tolist(), [0.0] * seeds)]
    ]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_studies_sized_from_five_pilot_seeds_have_the_power_that_was_planned():
    random = np.random.default_rng(21)
    powers = []
    for _ in range(400):
        pilot = random.normal(size=5).std(ddof=1)
        needed = seeds_needed(upper_deviation(float(pilot), 5), 1.0)
        limit = stats.t.ppf(0.975, needed - 1)
        powers.append(stats.nct.sf(limit, needed - 1, math.sqrt(needed)))
    assert np.mean(powers) >= 0.75
