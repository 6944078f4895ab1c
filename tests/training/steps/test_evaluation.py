import numpy as np
import pytest
import tensorflow as tf

import keras_preact
from keras_preact.data import datasets
from keras_preact.training.distribution.distributed_input import feed_evaluation
from keras_preact.training.steps.evaluation import Evaluation, evaluate, make_eval_step

STRATEGY = tf.distribute.get_strategy()


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


def evaluated(data, eval_step, batch_size=100):
    return evaluate(eval_step, *feed_evaluation(STRATEGY, data, batch_size))


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


def test_evaluation_counts_every_image_once_at_any_batch_size(digits_and_model):
    data, model = digits_and_model
    logits = predicted(data, model)
    eval_step = make_eval_step(model, data.info, STRATEGY)
    for batch_size in (7, 64, 360, 500):
        result = evaluated(data, eval_step, batch_size)
        assert_evaluates(result, logits, data.eval_source.labels)


def test_other_variables_can_be_evaluated_in_place_of_the_models_own(digits_and_model):
    data, model = digits_and_model
    rng = np.random.default_rng(0)
    groups = [
        [tf.Variable(variable + rng.uniform(0, 0.2, variable.shape)) for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    own = model.get_weights()
    result = evaluated(data, make_eval_step(model, data.info, STRATEGY, groups))
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
    evaluated(data, make_eval_step(model, data.info, STRATEGY))
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_sums_beyond_what_float32_can_count_are_exact():
    # 2**24 + 1 is the first whole number that float32 cannot hold.
    sums = [
        (tf.constant(2.0**24), tf.constant([[2.0**24, 0], [0, 2]]), 0),
        (tf.constant(1.0), tf.constant([[1.0, 0], [0, 2]]), 0),
    ]
    steps = iter(sums)
    result = evaluate(lambda batch, stop: next(steps), iter([("a",), ("b",)]), 2)
    assert result.confusion.tolist() == [[2**24 + 1, 0], [0, 4]]
    assert result.loss == (2**24 + 1) / (2**24 + 5)


def test_no_more_batches_are_taken_than_there_are_steps():
    batches = iter([("a",), ("b",), ("c",)])
    evaluate(lambda batch, stop: (tf.constant(1.0), tf.constant([[1.0]]), 0), batches, 2)
    assert list(batches) == [("c",)]


def test_an_evaluation_is_given_up_at_the_batch_after_the_request(digits_and_model):
    data, model = digits_and_model
    eval_step = make_eval_step(model, data.info, STRATEGY)
    asked = []

    def ask():
        asked.append(len(asked))
        return asked == [0, 1]

    batches, steps = feed_evaluation(STRATEGY, data, 100)
    assert evaluate(eval_step, batches, steps, ask) is None
    assert asked == [0, 1] and len(list(batches)) == 2
    # Other processes ask; this one learns of it by the sum.
    answers = iter([(tf.constant(1.0), tf.constant([[1.0]]), stops) for stops in (0.0, 1.0)])
    assert evaluate(lambda *arguments: next(answers), iter([(), (), ()]), 3) is None


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
        "accuracy 82.50% (1,650 of 2,000), error 17.50%, loss 0.4322"
    )
