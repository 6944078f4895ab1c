"""Two models beside each other: SciPy's tests, statsmodels' where it is installed."""

import numpy as np
import pytest
from answers_of import random_answers
from scipy import stats
from sklearn.metrics import f1_score

from keras_preact.evaluation import comparison
from keras_preact.evaluation.metrics import Answers


def _disagreeing(only_first, only_second, both=20):
    first = np.repeat([True, True, False, False], [both, only_first, only_second, 5])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, 5])
    return first, second


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (5, 5), (3, 14), (12, 12)])
def test_few_disagreements_have_the_exact_binomial_test(counts):
    found = comparison.mcnemar(*_disagreeing(*counts))
    total = sum(counts)
    expected = stats.binomtest(min(counts), total).pvalue if total else 1
    assert (found.only_first, found.only_second) == counts
    assert found.test == "exact binomial" and found.p_value == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(13, 12), (10, 30), (200, 260), (25, 0)])
def test_many_disagreements_have_chi_squared_with_continuity_correction(counts):
    found = comparison.mcnemar(*_disagreeing(*counts))
    b, c = counts
    squared = (abs(b - c) - 1) ** 2 / (b + c)
    assert found.statistic == pytest.approx(squared)
    assert found.p_value == pytest.approx(stats.chi2.sf(squared, 1))


@pytest.mark.parametrize("counts", [(3, 14), (200, 260)])
def test_the_test_is_that_of_statsmodels(counts):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    b, c = counts
    expected = tables.mcnemar([[20, b], [c, 5]], exact=b + c < 25, correction=True)
    found = comparison.mcnemar(*_disagreeing(*counts))
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_differences_are_those_of_the_numbers_with_paired_intervals():
    first = random_answers(count=300, classes=4, sharpness=1)
    noise = np.random.default_rng(5).random(first.probabilities.shape).astype(np.float32) / 10
    probabilities = first.probabilities + noise
    second = Answers(
        probabilities / probabilities.sum(axis=1, keepdims=True), first.labels, first.class_names
    )
    found = comparison.differences(first, second, 1000, seed=0)
    accuracy = second.correct.mean() - first.correct.mean()
    assert found["accuracy"].value == pytest.approx(accuracy)
    f1 = [f1_score(a.labels, a.predicted, average="macro") for a in (first, second)]
    assert found["macro_f1"].value == pytest.approx(f1[1] - f1[0])
    assert found["loss"].value == pytest.approx(second.losses.mean() - first.losses.mean())
    expected = stats.bootstrap(
        (second.correct.astype(float) - first.correct,), np.mean, method="percentile", rng=0
    ).confidence_interval
    assert found["accuracy"].interval == pytest.approx(tuple(expected), abs=0.006)


def test_models_may_have_their_classes_in_another_order():
    first = random_answers(count=200, classes=4)
    order = np.array([2, 0, 3, 1])
    second = Answers(
        first.probabilities[:, order],
        np.argsort(order)[first.labels],
        tuple(first.class_names[n] for n in order),
    )
    found = comparison.differences(first, second, 50, seed=0)
    for difference in found.values():
        assert difference.value == pytest.approx(0, abs=1e-12)
        assert difference.interval == pytest.approx((0, 0), abs=1e-12)
