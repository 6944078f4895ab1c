"""Every number beside scikit-learn's."""

import numpy as np
import pytest
from answers_of import random_answers
from sklearn import metrics as sklearn

from keras_preact.evaluation import metrics
from keras_preact.evaluation.metrics import Answers


@pytest.fixture(scope="module", params=[2, 7, 30], ids="classes={}".format)
def answers(request):
    return random_answers(classes=request.param)


def test_accuracy_loss_and_brier_score_are_those_of_scikit_learn(answers):
    numbers, labels = metrics.summary(answers), answers.labels
    assert numbers["accuracy"] == sklearn.accuracy_score(labels, answers.predicted)
    probabilities = answers.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = sklearn.log_loss(labels, probabilities)
    assert numbers["loss"] == pytest.approx(expected, rel=1e-5)
    scale = {} if answers.classes > 2 else {"scale_by_half": False}
    expected = sklearn.brier_score_loss(
        labels, probabilities, labels=range(answers.classes), **scale
    )
    assert numbers["brier_score"] == pytest.approx(expected, rel=1e-5)


def test_top_5_is_that_of_scikit_learn():
    answers = random_answers(classes=30)
    expected = sklearn.top_k_accuracy_score(answers.labels, answers.probabilities, k=5)
    assert metrics.summary(answers)["top5_accuracy"] == pytest.approx(expected)
    assert "top5_accuracy" not in metrics.summary(random_answers(classes=5))


def test_top_1_is_the_accuracy_also_among_equal_probabilities():
    answers = random_answers(ties=True)
    assert answers.top_k_accuracy(1) == answers.correct.mean()
    assert answers.top_k_accuracy(answers.classes) == 1


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_figures_of_classes_and_their_means_are_those_of_scikit_learn(answers, average):
    labels = answers.labels % max(answers.classes - 1, 2)  # the last class of many has no images
    answers = Answers(answers.probabilities, labels, answers.class_names)
    classes, present = range(answers.classes), np.unique(labels)
    assert np.array_equal(
        answers.confusion, sklearn.confusion_matrix(labels, answers.predicted, labels=classes)
    )
    figures = metrics.per_class(answers.confusion)
    expected = sklearn.precision_recall_fscore_support(
        labels, answers.predicted, labels=classes, zero_division=0
    )
    found = (figures.precision, figures.recall, figures.f1, figures.support)
    for column, values in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.nan_to_num(column), values)
    *expected, _ = sklearn.precision_recall_fscore_support(
        labels, answers.predicted, labels=present, average=average, zero_division=0
    )
    found = figures.averages()[average]
    assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(expected)


def test_what_cannot_be_divided_is_not_a_number():
    figures = metrics.per_class(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert np.isnan(figures.precision).tolist() == [False, True, True]
    assert np.isnan(figures.recall).tolist() == [False, False, True]
    assert figures.f1[:2].tolist() == [0.8, 0]
    assert np.isnan(figures.f1[2])


def test_a_probability_of_0_counts_as_half_the_smallest_positive_one():
    answers = Answers(np.array([[0.75, 0.25], [0, 1]], np.float32), np.array([0, 0]), ("a", "b"))
    assert answers.losses.tolist() == pytest.approx([-np.log(0.75), -np.log(0.125)])


def test_the_accuracy_among_the_classes_of_the_data_leaves_the_others_out():
    probabilities = np.array([[0.2, 0.3, 0.5], [0.1, 0.5, 0.4]], np.float32)
    answers = Answers(probabilities, np.array([1, 1]), ("a", "b", "c"))
    numbers = metrics.summary(answers)
    assert (numbers["accuracy"], numbers["accuracy_among_data_classes"]) == (0.5, 1)


def test_the_commonest_confusions_come_first():
    confusion = np.array([[5, 1, 0], [3, 4, 2], [0, 0, 9]])
    assert metrics.confused_pairs(confusion, 2) == [(1, 0, 3), (1, 2, 2)]
    assert len(metrics.confused_pairs(confusion, 10)) == 3


def test_selective_accuracy_is_that_of_the_most_confident():
    answers = random_answers(count=95)
    found = metrics.selective_accuracy(answers)
    for coverage, accuracy in zip(found["coverage"], found["accuracy"], strict=True):
        kept = int(np.ceil(round(coverage * 95, 6)))
        best = sorted(range(95), key=lambda n: -answers.confidence[n])[:kept]
        assert accuracy == pytest.approx(np.mean(answers.correct[best]))
    assert found["accuracy"][-1] == answers.correct.mean()


@pytest.mark.parametrize(
    ("count", "labels"), [(0, []), (2, [0]), (2, [0, 3]), (2, [0, -1]), (2, [[0], [1]])]
)
def test_answers_that_do_not_fit_are_refused(count, labels):
    with pytest.raises(ValueError, match="must"):
        Answers(np.ones((count, 3), np.float32) / 3, np.array(labels, int), ("a", "b", "c"))
