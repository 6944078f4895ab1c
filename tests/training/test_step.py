import keras
import numpy as np
import tensorflow as tf

import keras_preact
from keras_preact.data import datasets
from keras_preact.training import step
from keras_preact.training.evaluation import evaluate


def cross_entropy(logits, labels):
    """Per image, in NumPy and float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels]


def small_setup():
    data = datasets.load("digits")
    model = keras_preact.ResNetV2(8, input_shape=data.info.image_shape)
    return data, model, tf.distribute.get_strategy()


def test_normalized_training_images_have_mean_0_and_standard_deviation_1():
    data = datasets.load("digits")
    normalize = step.make_normalizer(data.info.mean, data.info.std)
    images = normalize(tf.constant(data.train_source.images)).numpy()
    assert images.dtype == np.float32
    np.testing.assert_allclose([images.mean(), images.std()], [0, 1], atol=1e-3)


def test_a_training_step_reports_the_loss_before_the_update_and_lowers_it():
    data, model, strategy = small_setup()
    images, labels = next(iter(data.train(32)))
    normalize = step.make_normalizer(data.info.mean, data.info.std)
    logits = model(normalize(images), training=True).numpy()
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)
    take = step.make_train_step(model, optimizer, data.info, 32, strategy)
    loss, correct = take(images, labels)
    np.testing.assert_allclose(loss, cross_entropy(logits, labels.numpy()).mean(), rtol=1e-4)
    assert float(correct) == (logits.argmax(axis=1) == labels.numpy()).sum()
    losses = [float(take(images, labels)[0]) for _ in range(10)]
    assert losses[-1] < float(loss)


def test_evaluation_counts_every_image_once_at_any_batch_size():
    data, model, strategy = small_setup()
    images = data.eval_source.images.astype(np.float64)
    normalized = ((images - data.info.mean) / data.info.std).astype(np.float32)
    logits = model.predict(normalized, verbose=0)
    labels = data.eval_source.labels
    expected_accuracy = (logits.argmax(axis=1) == labels).mean()
    eval_step = step.make_eval_step(model, data.info, strategy)
    for batch_size in (7, 64, 360, 500):
        result = evaluate(eval_step, data.eval(batch_size), data.info.eval_count)
        assert result.count == 360
        assert result.accuracy == expected_accuracy
        np.testing.assert_allclose(result.loss, cross_entropy(logits, labels).mean(), rtol=1e-5)


def test_evaluation_leaves_the_moving_statistics_alone():
    data, model, strategy = small_setup()
    before = [variable.numpy() for variable in model.non_trainable_variables]
    eval_step = step.make_eval_step(model, data.info, strategy)
    evaluate(eval_step, data.eval(100), data.info.eval_count)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
