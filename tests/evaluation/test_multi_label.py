"""Numbers of images of several classes beside scikit-learn's."""

import numpy as np
import pytest
from answers_of import random_multi_label_answers
from sklearn import metrics as sklearn

from keras_preact.evaluation import multi_label
from keras_preact.evaluation.multi_label import Answers


@pytest.fixture(scope="module", params=[False, True], ids=["distinct", "ties"])
def answers(request):
    return random_multi_label_answers(ties=request.param)


def test_average_precision_and_roc_auc_are_those_of_scikit_learn(answers):
    figures = multi_label.per_class(answers)
    for place in range(answers.classes - 1):
        truth, scores = answers.labels[:, place], answers.probabilities[:, place]
        expected = sklearn.average_precision_score(truth, scores)
        assert figures.average_precision[place] == pytest.approx(expected)
        assert figures.roc_auc[place] == pytest.approx(sklearn.roc_auc_score(truth, scores))
    # A class without images has neither.
    assert np.isnan([figures.average_precision[-1], figures.roc_auc[-1]]).all()
    assert np.isnan(figures.threshold[-1])


def test_the_means_are_those_of_scikit_learn(answers):
    figures = multi_label.per_class(answers)
    numbers = multi_label.summary(answers, figures)
    labels, predicted = answers.labels, answers.predicted
    several = slice(0, answers.classes - 1)
    expected = sklearn.average_precision_score(
        labels[:, several], answers.probabilities[:, several], average="macro"
    )
    assert numbers["mean_average_precision"] == pytest.approx(expected)
    for average, columns in (("macro", several), ("micro", slice(None))):
        *expected, _ = sklearn.precision_recall_fscore_support(
            labels[:, columns], predicted[:, columns], average=average, zero_division=0
        )
        found = [numbers[f"{average}_{name}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected)
    assert numbers["exact_match"] == sklearn.accuracy_score(labels, predicted)


def test_the_loss_is_that_of_scikit_learn():
    answers = random_multi_label_answers()
    columns = zip(answers.labels.T, answers.probabilities.T.astype(np.float64), strict=True)
    expected = [sklearn.log_loss(truth, scores, labels=[0, 1]) for truth, scores in columns]
    assert answers.losses.mean() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_fitted_threshold_has_the_best_f1_of_all(answers):
    figures = multi_label.per_class(answers)
    for place in range(answers.classes - 1):
        truth, scores = answers.labels[:, place], answers.probabilities[:, place]
        precision, recall, _ = sklearn.precision_recall_curve(truth, scores)
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9))
        assert figures.best_f1[place] == pytest.approx(best)
        predicted = scores >= figures.threshold[place]
        assert sklearn.f1_score(truth, predicted) == pytest.approx(best)


def test_weights_count_images_several_times():
    answers = random_multi_label_answers(count=80, ties=True)
    generator = np.random.default_rng(0)
    weights = generator.multinomial(80, np.full(80, 1 / 80), size=5)
    found = multi_label.mean_average_precision(answers, weights)
    for row, value in zip(weights, found, strict=True):
        images = np.repeat(np.arange(80), row)
        scores = [
            sklearn.average_precision_score(
                answers.labels[images, place], answers.probabilities[images, place]
            )
            for place in range(answers.classes - 1)
        ]
        assert value == pytest.approx(np.mean(scores))
    one = multi_label.mean_average_precision(answers, np.ones((1, 80), int))
    assert one.shape == (1,)


def test_intervals_hold_the_number():
    answers = random_multi_label_answers()
    figures = multi_label.per_class(answers)
    numbers = multi_label.summary(answers, figures)
    for name, (low, high) in multi_label.intervals(answers, 200, seed=0).items():
        assert low < numbers[name] < high
    assert 0 < numbers["fitted_macro_f1"] <= np.nanmean(figures.best_f1)


@pytest.mark.parametrize("value", [0.5, 2, np.nan])
def test_labels_other_than_0_and_1_are_refused(value):
    with pytest.raises(ValueError, match="zeros and ones"):
        Answers(np.full((1, 1), 0.5, np.float32), np.full((1, 1), value, np.float32), ("a",))
