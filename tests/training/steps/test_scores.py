"""The figures of evaluations against scikit-learn's."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from keras_preact.training.steps import scores
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation


def confusion_of(labels, answers, classes):
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, answers), 1)
    return counts


def test_figures_of_one_label_are_scikit_learns():
    rng = np.random.default_rng(0)
    # Class 5 is neither there nor predicted, class 4 is predicted alone.
    labels = rng.choice(4, 300)
    answers = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 5, 300))
    result = Evaluation(0.5, confusion_of(labels, answers, 6), top5=290)
    assert result.macro_f1 == pytest.approx(metrics.f1_score(labels, answers, average="macro"))
    of_classes = metrics.f1_score(
        labels, answers, labels=range(6), average=None, zero_division=np.nan
    )
    np.testing.assert_allclose(result.class_f1, of_classes)
    assert result.scores == {
        "loss": 0.5,
        "accuracy": pytest.approx(metrics.accuracy_score(labels, answers)),
        "top5_accuracy": 290 / 300,
        "macro_f1": result.macro_f1,
    }
    assert "top-5 96.67%" in str(result)
    few = Evaluation(0.5, confusion_of(labels, answers, 5), top5=300)
    assert few.top5_accuracy is None and "top5_accuracy" not in few.scores


@st.composite
def logits_and_labels(draw):
    # scikit-learn takes one column for a label of two classes.
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    if draw(st.booleans()):
        logits = np.round(logits)  # equal scores
    return logits, (rng.random((count, classes)) < draw(st.floats(0, 1))).astype(np.float32)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(logits_and_labels())
def test_average_precisions_are_scikit_learns_also_of_equal_scores(pair):
    logits, labels = pair
    found = scores.average_precisions(logits, labels)
    for place, precision in enumerate(found):
        if labels[:, place].any():
            expected = metrics.average_precision_score(labels[:, place], logits[:, place])
            assert precision == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(precision)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(logits_and_labels())
def test_figures_of_several_labels_are_scikit_learns(pair):
    logits, labels = pair
    result, predicted = MultiLabelEvaluation.of(0.5, logits, labels), logits >= 0
    assert result.accuracy == metrics.accuracy_score(labels, predicted)
    there = labels.any(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of_classes = metrics.f1_score(labels, predicted, average=None, zero_division=np.nan)
        micro = metrics.f1_score(labels, predicted, average="micro")
    np.testing.assert_allclose(result.class_f1, of_classes)
    defined = of_classes[~np.isnan(of_classes)]
    assert result.macro_f1 == pytest.approx(defined.mean() if defined.size else 0)
    assert result.micro_f1 == pytest.approx(micro)
    mean = metrics.average_precision_score(labels[:, there], logits[:, there]) if there.any() else 0
    assert result.mean_average_precision == pytest.approx(mean)


def test_several_labels_are_told_in_one_line():
    logits = np.array([[1.0, -1.0], [2.0, 1.0], [-3.0, -4.0], [-5.0, 5.0]])
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert str(MultiLabelEvaluation.of(0.12345, logits, labels)) == (
        "mean average precision 100.00%, macro F1 83.33%, micro F1 85.71%, all labels right "
        "75.00% (3 of 4), loss 0.1235"
    )


def test_the_loss_is_best_if_smallest_and_all_else_if_largest():
    better = Evaluation(0.4, np.eye(3, dtype=int))
    worse = Evaluation(0.5, np.ones((3, 3), int))
    for monitor in ("loss", "accuracy", "macro_f1"):
        assert better.score(monitor) > worse.score(monitor)


def test_the_monitor_must_be_a_figure_of_such_labels():
    assert scores.chosen_monitor(None, multi_label=False) == "accuracy"
    assert scores.chosen_monitor(None, multi_label=True) == "mean_average_precision"
    assert scores.chosen_monitor("loss", multi_label=True) == "loss"
    with pytest.raises(ValueError, match="monitor of images with one label must be one of acc"):
        scores.chosen_monitor("mean_average_precision", multi_label=False)
