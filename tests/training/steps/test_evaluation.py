import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics
from small_labels import several_labels

import keras_preact
from keras_preact.data import datasets
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import (
    ComputePlan,
    Machine,
    make_compute_plan,
)
from keras_preact.training.distribution.device_images import MOST_STEPS, DeviceImages
from keras_preact.training.steps.evaluation import Evaluator
from keras_preact.training.steps.scores import Evaluation
from keras_preact.training.steps.tallies import OneLabel, SeveralLabels

STRATEGY = tf.distribute.get_strategy()
PLAN = make_compute_plan(TrainConfig(), Machine())


@pytest.fixture
def digits_and_model():
    data = datasets.load("digits")
    return data, keras_preact.ResNetV2(8, input_shape=data.info.image_shape)


def log_probabilities(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def predicted(data, model):
    """Returns the logits of all evaluation images, by Keras' own predict."""
    images = data.eval_source.images.astype(np.float64)
    normalized = ((images - data.info.mean) / data.info.std).astype(np.float32)
    return model.predict(normalized, verbose=0)


def evaluator(data, model, on_device=False, **options):
    images = DeviceImages(data, None, STRATEGY) if on_device else None
    return Evaluator(model, data, PLAN, STRATEGY, images=images, **options)


def assert_evaluates(result, logits, labels):
    answers = logits.argmax(axis=1)
    expected = [
        [np.sum((labels == true) & (answers == guess)) for guess in range(10)] for true in range(10)
    ]
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.count == 360
    assert result.accuracy == (answers == labels).mean()
    loss = -log_probabilities(logits)[np.arange(360), labels].mean()
    np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
    top5 = metrics.top_k_accuracy_score(labels, logits, k=5, normalize=False)
    assert result.top5 == top5 and 0 < top5 < 360


@pytest.mark.parametrize("on_device", [True, False])
def test_evaluation_counts_every_image_once_at_any_batch_size(digits_and_model, on_device):
    data, model = digits_and_model
    logits, evaluate = predicted(data, model), evaluator(data, model, on_device)
    for batch_size in (7, 64, 360, 500):
        assert_evaluates(evaluate(batch_size), logits, data.eval_source.labels)


def test_other_values_can_be_evaluated_in_place_of_the_models_own(digits_and_model):
    data, model = digits_and_model
    rng = np.random.default_rng(0)
    groups = [
        [tf.Variable(variable + rng.uniform(0, 0.2, variable.shape)) for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    own = model.get_weights()

    def logits(images):
        values = [[tf.convert_to_tensor(variable) for variable in group] for group in groups]
        return model.stateless_call(*values, images, training=False)[0]

    result = evaluator(data, model, logits=logits)(100)
    for variable, value in zip(model.weights, own, strict=True):
        np.testing.assert_array_equal(variable, value)
    for variables, group in zip(
        (model.trainable_variables, model.non_trainable_variables), groups, strict=True
    ):
        for variable, value in zip(variables, group, strict=True):
            variable.assign(value)
    assert_evaluates(result, predicted(data, model), data.eval_source.labels)


def test_evaluation_leaves_the_moving_statistics_alone(digits_and_model):
    data, model = digits_and_model
    before = [variable.numpy() for variable in model.non_trainable_variables]
    evaluator(data, model)(100)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


class FixedSums(Evaluator):
    """Every batch has the loss and the number of images that float32 can count up to."""

    def _sums(self, batch):
        confusion = tf.pad([[2.0**24]], [[0, 9], [0, 9]])
        return tf.constant(2.0**24) + 0 * batch[-1][0], confusion, tf.constant(2.0**24)


@pytest.mark.parametrize("on_device", [True, False])
def test_sums_beyond_what_float32_can_count_are_exact(digits_and_model, on_device):
    data, model = digits_and_model
    images = DeviceImages(data, None, STRATEGY) if on_device else None
    evaluate = FixedSums(model, data, PLAN, STRATEGY, images=images)
    # 72 and 52 batches: neither a power of two, nor one launch.
    for batch_size, batches in ((5, 72), (7, 52)):
        result = evaluate(batch_size)
        assert result.count == result.top5 == batches * 2**24 and result.loss == 1


@pytest.mark.parametrize("on_device", [True, False])
def test_an_evaluation_is_given_up_at_the_launch_after_the_request(digits_and_model, on_device):
    data, model = digits_and_model
    asked = []

    def ask():
        asked.append(len(asked))
        return asked == [0, 1]

    evaluate = evaluator(data, model, on_device)
    # The first launches take one batch each, as their time is not known yet.
    assert evaluate(100, ask) is None
    assert asked == [0, 1]
    assert evaluate(100).count == 360


def test_accuracies_are_shares_of_correct_images_among_all_and_in_each_class():
    rng = np.random.default_rng(0)
    # The third class is predicted, but has no images.
    labels = rng.choice([0, 1, 3], 500)
    answers = np.where(rng.random(500) < 0.6, labels, rng.integers(0, 4, 500))
    confusion = np.zeros((4, 4), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    result = Evaluation(0.5, confusion)
    assert result.count == 500
    assert result.accuracy == pytest.approx(np.mean(answers == labels), rel=1e-12)
    with np.errstate(all="raise"):
        of_classes = result.class_accuracies
    for number in (0, 1, 3):
        right = np.mean(answers[labels == number] == number)
        assert of_classes[number] == pytest.approx(right, rel=1e-12)
    assert np.isnan(of_classes[2]) and confusion[:, 2].sum() > 0


def test_an_evaluation_is_told_in_one_line():
    confusion = np.array([[900, 100], [250, 750]])
    assert str(Evaluation(0.43216, confusion)) == (
        "accuracy 82.50% (1,650 of 2,000), error 17.50%, macro F1 82.40%, loss 0.4322"
    )


def test_of_equal_logits_the_first_classes_lead_as_they_do_for_the_accuracy():
    logits, labels = np.zeros((7, 7), np.float32), np.arange(7, dtype=np.int32)
    logits[:, 6] = 1
    tally, ones = OneLabel(7), np.ones(7, np.float32)
    _, confusion, top5 = tally.of_batch(*map(tf.constant, (logits, labels, ones)))
    assert confusion[:, 6].numpy().sum() == 7
    # Class 6, and the first four of the others.
    assert float(top5) == 5


def binary_loss(logits, labels):
    logits = logits.astype(np.float64)
    return (np.logaddexp(0, logits) - labels * logits).mean()


@pytest.mark.parametrize("on_device", [True, False])
def test_several_labels_are_evaluated_exactly_at_any_batch_size(on_device):
    data = several_labels()
    model = keras_preact.ResNetV2(8, input_shape=data.info.image_shape, classes=5)
    logits, labels = predicted(data, model), data.eval_source.labels
    evaluate = evaluator(data, model, on_device)
    for batch_size in (7, 360, 500):
        result = evaluate(batch_size)
        assert result.count == 360
        np.testing.assert_allclose(result.loss, binary_loss(logits, labels), rtol=1e-5)
        there = labels.any(axis=0)
        assert there.tolist() == [True] * 4 + [False]
        expected = metrics.average_precision_score(labels[:, there], logits[:, there])
        assert result.mean_average_precision == pytest.approx(expected, abs=1e-3)
        np.testing.assert_array_equal(result.true, labels.sum(axis=0))
        near = np.abs(logits).min(axis=0) < 1e-5
        np.testing.assert_array_equal(result.predicted[~near], (logits >= 0).sum(axis=0)[~near])


def test_many_classes_are_evaluated_in_launches_of_fewer_batches():
    assert SeveralLabels(5).most_steps(100) == MOST_STEPS
    assert SeveralLabels(10_000).most_steps(256) == 6
    assert SeveralLabels(10**7).most_steps(256) == 1


class LoopsInXLA(ComputePlan):
    xla_loops = True


@pytest.mark.slow
def test_xla_loops_evaluate_several_labels_alike():
    data = several_labels()
    model = keras_preact.ResNetV2(8, input_shape=data.info.image_shape, classes=5)
    images = DeviceImages(data, None, STRATEGY)
    compiled = LoopsInXLA(**{f.name: getattr(PLAN, f.name) for f in dataclasses.fields(PLAN)})
    first, second = (
        Evaluator(model, data, plan, STRATEGY, images=images)(100) for plan in (PLAN, compiled)
    )
    assert first.scores == pytest.approx(second.scores, rel=1e-3)
    assert first.count == second.count == 360
