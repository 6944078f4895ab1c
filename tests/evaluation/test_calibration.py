"""Calibration errors beside a loop and scikit-learn, the temperature beside SciPy's search."""

import numpy as np
import pytest
from answers_of import random_answers, random_multi_label_answers
from scipy import optimize, special
from sklearn.calibration import calibration_curve

from keras_preact.evaluation import calibration
from keras_preact.evaluation.metrics import Answers


def test_the_expected_calibration_error_is_that_of_a_loop():
    answers = random_answers(count=500)
    expected, largest = 0.0, 0.0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        inside = [n for n in range(500) if low < answers.confidence[n] <= high]
        if inside:
            gap = abs(np.mean(answers.correct[inside]) - np.mean(answers.confidence[inside]))
            expected, largest = expected + gap * len(inside) / 500, max(largest, gap)
    found = calibration.reliability(answers.confidence, answers.correct)
    assert found.expected_error == pytest.approx(expected)
    assert found.maximum_error == pytest.approx(largest)
    assert found.counts.sum() == 500


@pytest.mark.parametrize(("strategy", "adaptive"), [("uniform", False), ("quantile", True)])
def test_the_bins_are_those_of_scikit_learn(strategy, adaptive):
    answers = random_answers(count=504)
    found = calibration.reliability(answers.confidence, answers.correct, 10, adaptive)
    accuracy, confidence = calibration_curve(
        answers.correct, answers.confidence, n_bins=10, strategy=strategy
    )
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence, rtol=1e-6)


def test_a_bin_includes_its_upper_end():
    found = calibration.reliability(np.array([0.2, 0.5, 0.500001, 1.0]), np.ones(4, bool), bins=2)
    assert found.counts.tolist() == [2, 2]


def test_adaptive_bins_of_equal_confidences_are_merged():
    found = calibration.reliability(np.full(20, 1.0), np.arange(20) < 15, adaptive=True)
    assert found.counts.sum() == 20 and found.expected_error == pytest.approx(0.25)


def test_the_temperature_is_that_of_another_search():
    answers = random_answers(count=600, sharpness=4)
    logits = 3 * np.log(answers.probabilities)

    def loss(log_temperature):
        scaled = logits / np.exp(log_temperature)
        own = scaled[np.arange(600), answers.labels]
        return np.mean(special.logsumexp(scaled, axis=1) - own)

    expected = np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    found = calibration.fit_temperature(logits, answers.labels)
    assert found == pytest.approx(expected, rel=2e-3)
    several = random_multi_label_answers()
    logits = calibration.inverse_sigmoid(several.probabilities)
    np.testing.assert_allclose(calibration.sigmoid(logits), several.probabilities, rtol=1e-5)

    def binary(log_temperature):
        scaled = logits / np.exp(log_temperature)
        return np.mean(np.logaddexp(0, scaled) - several.labels * scaled)

    expected = np.exp(optimize.minimize_scalar(binary, bounds=(-3, 3), method="bounded").x)
    found = calibration.fit_temperature(logits, several.labels)
    assert found == pytest.approx(expected, rel=2e-3)


def _drawn(count, temperature, seed=0):
    """Answers of a calibrated model whose logits have been multiplied by the temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(count, 10))
    calibrated = special.softmax(logits, axis=1)
    labels = (generator.random(count)[:, None] > np.cumsum(calibrated, axis=1)[:, :-1]).sum(axis=1)
    probabilities = special.softmax(logits * temperature, axis=1).astype(np.float32)
    return Answers(probabilities, labels, tuple("abcdefghij"))


def test_the_temperature_of_an_overconfident_model_is_found_and_calibrates_it():
    answers = _drawn(6000, temperature=2.5)
    found = calibration.temperature(answers)
    assert found.value == pytest.approx(2.5, rel=0.05) and not found.at_end_of_range
    before = calibration.reliability(answers.confidence, answers.correct).expected_error
    assert found.reliability.expected_error < 0.025 < 0.15 < before
    assert found.loss < answers.losses.mean() - 0.2
    # A temperature that the model has already counts.
    assert calibration.temperature(answers, before=2).value == pytest.approx(2 * found.value)


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_of_many_images_is_found_as_that_of_few(monkeypatch, several):
    if several:
        answers = random_multi_label_answers(count=900)
        logits = 2 * calibration.inverse_sigmoid(answers.probabilities)
    else:
        answers = _drawn(900, temperature=3)
        logits = np.log(answers.probabilities)
    expected = calibration.fit_temperature(logits, answers.labels)
    monkeypatch.setattr(calibration, "_ROWS", 100)
    found = calibration.fit_temperature(logits, answers.labels)
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_effect_of_a_temperature_is_measured_crosswise():
    answers = _drawn(400, temperature=2)
    found, losses = calibration.temperature(answers, seed=3), np.empty(400)
    for fitted, rest in calibration.halves(400, seed=3):
        assert sorted([*fitted, *rest]) == list(range(400))
        logits = np.log(answers.probabilities)
        value = calibration.fit_temperature(logits[fitted], answers.labels[fitted])
        scaled = special.log_softmax(logits[rest] / value, axis=1)
        losses[rest] = -scaled[np.arange(200), answers.labels[rest]]
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)


def test_answers_that_are_all_right_have_no_temperature_in_the_range():
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (10, 1))
    answers = Answers(probabilities, np.zeros(10, int), ("a", "b"))
    assert calibration.temperature(answers).at_end_of_range
    one = Answers(probabilities[:1], np.zeros(1, int), ("a", "b"))
    assert calibration.temperature(one) is None


def test_a_multi_label_temperature_calibrates():
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=1.5, size=(3000, 4))
    labels = (generator.random((3000, 4)) < special.expit(logits)).astype(np.float32)
    probabilities = special.expit(3 * logits).astype(np.float32)
    found = calibration.multi_label_temperature(probabilities, labels)
    assert found.value == pytest.approx(3, rel=0.06)
    assert found.reliability.expected_error < 0.02
