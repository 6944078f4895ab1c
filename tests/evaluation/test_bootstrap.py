"""Intervals beside SciPy's bootstrap, and beside a loop that draws images one by one."""

import numpy as np
import pytest
from answers_of import random_answers
from scipy import stats
from sklearn.metrics import f1_score

from keras_preact.evaluation import bootstrap
from keras_preact.evaluation.bootstrap import Cells


def test_statistics_of_a_draw_are_those_of_the_images_drawn():
    answers = random_answers(count=60)
    kinds = np.flatnonzero(answers.confusion)
    cells = Cells(*np.divmod(kinds, answers.classes), answers.classes)
    generator = np.random.default_rng(1)
    for _ in range(20):
        images = generator.integers(60, size=60)
        labels, predicted = answers.labels[images], answers.predicted[images]
        draw = np.bincount(labels * answers.classes + predicted, minlength=answers.classes**2)
        assert cells.accuracy(draw[None, kinds]) == pytest.approx(np.mean(labels == predicted))
        expected = f1_score(labels, predicted, labels=np.unique(labels), average="macro")
        assert cells.macro_f1(draw[None, kinds]) == pytest.approx(expected)


def test_intervals_are_those_of_scipy():
    answers = random_answers(count=300, classes=4)
    found = bootstrap.confusion_intervals(answers.confusion, 4000, seed=0)
    options = {"n_resamples": 4000, "method": "percentile", "rng": 0, "paired": True}

    def macro_f1(labels, predicted):
        return f1_score(labels, predicted, average="macro")

    for name, data, statistic, resamples in (
        ("accuracy", (answers.correct.astype(float),), np.mean, 4000),
        ("macro_f1", (answers.labels, answers.predicted), macro_f1, 600),
    ):
        options["n_resamples"] = resamples
        expected = stats.bootstrap(data, statistic, vectorized=False, **options).confidence_interval
        assert found[name] == pytest.approx(tuple(expected), abs=0.008)
    expected = stats.bootstrap((answers.losses,), np.mean, method="percentile", rng=0)
    drawn = bootstrap.resampled_mean(answers.losses, 4000, seed=0)
    assert bootstrap.interval(drawn) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_the_seed_decides_the_intervals():
    confusion = random_answers().confusion
    first, again, other = (
        bootstrap.confusion_intervals(confusion, 100, seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_many_kinds_are_drawn_in_parts(monkeypatch):
    confusion = random_answers(classes=30).confusion
    whole = bootstrap.confusion_intervals(confusion, 200, seed=0)
    monkeypatch.setattr(bootstrap, "_MOST_NUMBERS", 3000)
    assert bootstrap.confusion_intervals(confusion, 200, seed=0) == whole
