"""Statistics of few runs beside SciPy's, closed forms and complete enumeration."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from keras_preact.experiments.statistics import holm, kendall, least_p, median, p_lower, spread

INF = math.inf


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5), (2, 3), (3, 3), (5, 5), (4, 9)])
@pytest.mark.parametrize("seed", range(3))
def test_the_test_of_order_is_scipys_exact_one_without_ties(sizes, seed):
    low, high = np.split(np.random.default_rng(seed).permutation(sum(sizes)), [sizes[0]])
    expected = stats.mannwhitneyu(low, high, alternative="less", method="exact").pvalue
    assert p_lower(low.tolist(), high.tolist()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ([1, 2, 2], [2, 3, 3]),
        ([0.1, 0.1, INF], [0.2, INF, INF]),
        ([INF, INF, INF], [INF, INF]),
        ([3, 1, 2, 2, 5], [2, 2, 4, INF]),
    ],
)
def test_with_equal_values_it_is_the_share_of_all_divisions_with_as_low_a_sum_of_ranks(low, high):
    ranks = stats.rankdata([*low, *high])
    sums = [sum(group) for group in itertools.combinations(ranks, len(low))]
    expected = np.mean(np.array(sums) <= sum(ranks[: len(low)]))
    assert p_lower(low, high) == pytest.approx(expected, rel=1e-12)


def test_three_runs_all_below_three_have_the_lowest_p_which_is_one_in_twenty():
    assert p_lower([1, 2, 3], [4, 5, 6]) == least_p(3, 3) == 0.05
    assert p_lower([4, 5, 6], [1, 2, 3]) == 1


def test_forty_runs_are_tested_in_no_time_and_as_scipy_does():
    random = np.random.default_rng(0)
    low, high = random.normal(0, 1, 20), random.normal(0.5, 1, 20)
    expected = stats.mannwhitneyu(low, high, alternative="less", method="exact").pvalue
    assert p_lower(low.tolist(), high.tolist()) == pytest.approx(expected, rel=1e-9)


def test_holms_correction_of_his_own_kind_of_example():
    # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then no less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_holm_rejects_just_what_its_steps_reject(seed):
    values = np.random.default_rng(seed).uniform(0, 0.1, 7)
    rejected = set()
    for step, place in enumerate(np.argsort(values)):
        if values[place] > 0.05 / (7 - step):
            break
        rejected.add(int(place))
    assert {place for place, p in enumerate(holm(values.tolist())) if p <= 0.05} == rejected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_the_rank_correlation_is_scipys(seed, ties):
    random = np.random.default_rng(seed)
    one, other = random.integers(0, 4 if ties else 10_000, (2, 9)).tolist()
    assert kendall(one, other)[0] == pytest.approx(stats.kendalltau(one, other).statistic)


@pytest.mark.parametrize("count", [4, 6, 7])
def test_its_p_value_is_scipys_exact_one_for_few_pairs(count):
    order = np.random.default_rng(1).permutation(count).tolist()
    expected = stats.kendalltau(range(count), order, method="exact", alternative="greater").pvalue
    assert kendall(range(count), order)[1] == pytest.approx(expected)


def test_its_p_value_is_near_scipys_for_many_pairs_and_always_the_same():
    order = [1, 0, 4, 2, 3, 9, 5, 8, 6, 7]
    expected = stats.kendalltau(range(10), order, method="exact", alternative="greater").pvalue
    found = kendall(range(10), order)[1]
    assert found == kendall(range(10), order)[1] == pytest.approx(expected, abs=0.01)


def test_a_correlation_with_a_constant_is_none():
    assert math.isnan(kendall([1, 1, 1, 1], [1, 2, 3, 4])[0])


def test_published_failures_are_ties_at_the_upper_end():
    published, measured = [6.61, INF, INF, 12.35], [0.2, 0.5, INF, 0.3]
    expected = stats.kendalltau([1, 3, 3, 2], [1, 3, 4, 2]).statistic
    assert kendall(published, measured)[0] == pytest.approx(expected)


def test_median_and_spread_are_those_of_the_standard_library():
    values = [0.07, 0.0615, 0.066, 0.0642]
    found = spread(values)
    assert (found.count, found.median) == (4, pytest.approx(statistics.median(values)))
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.std == pytest.approx(statistics.stdev(values))


def test_runs_that_diverged_count_in_the_median_and_not_in_the_mean():
    found = spread([0.1, 0.2, INF, 0.3, INF])
    assert (found.count, found.median, found.mean) == (3, 0.3, pytest.approx(0.2))
    assert spread([0.1, INF]).median == median([INF, INF]) == INF
    assert math.isnan(spread([INF]).mean) and math.isnan(spread([0.1]).std)
