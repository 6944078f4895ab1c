"""The gradient at all units against NumPy and against one tape over the whole network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy_net import Net
from tiny_chains import chain_of_units, every_block, norms, one_tape, sample, three_stages

from keras_preact import analysis
from keras_preact.layers import ORDERS, SHORTCUTS, ResidualUnit, Shortcut
from keras_preact.models import ResNetV2

SHAPE = (6, 6, 4)


def cosines(terms):
    return [np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) for _, a, b in terms]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_the_gradient_and_its_terms_are_those_differentiated_by_hand(dtype, tolerance):
    keras.config.set_dtype_policy(dtype)
    model = chain_of_units(3, SHAPE)
    images, labels = sample(SHAPE, batch=3)
    images = images.astype(dtype)
    measured = analysis.backward(model, images, labels)
    loss, last, terms = Net(model).backward(images, labels)
    gradients, shortcuts, residuals = zip(*terms, strict=True)
    for name, expected in (
        ("loss", loss),
        ("output_gradient_norm", np.linalg.norm(last)),
        ("gradient_norm", norms(gradients)),
        ("shortcut_norm", norms(shortcuts)),
        ("residual_norm", norms(residuals)),
        ("cosine", cosines(terms)),
    ):
        np.testing.assert_allclose(getattr(measured, name), expected, rtol=tolerance, err_msg=name)
    np.testing.assert_array_less(measured.split_error, {"float64": 1e-14, "float32": 1e-6}[dtype])


@pytest.mark.parametrize(("number", "shortcut"), [*enumerate(SHORTCUTS)])
@pytest.mark.parametrize("order", ORDERS)
def test_the_two_terms_add_up_to_the_gradient_of_one_tape(order, shortcut, number):
    # All three blocks in a chain, each of them first in some.
    model = every_block(order, shortcut, first=(number + len(order)) % 3)
    images, labels = sample()
    measured = analysis.backward(model, images, labels)
    loss, (*gradients, last) = one_tape(model, images, labels)
    np.testing.assert_allclose(measured.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(measured.output_gradient_norm, np.linalg.norm(last), rtol=1e-5)
    np.testing.assert_allclose(measured.gradient_norm, norms(gradients), rtol=1e-5)
    np.testing.assert_array_less(measured.split_error, 1e-5)
    # The sides of a triangle: |a + b|^2 = |a|^2 + |b|^2 + 2 |a||b| cos.
    a, b = measured.shortcut_norm, measured.residual_norm
    along = np.nan_to_num(measured.cosine)
    np.testing.assert_allclose(
        np.sqrt(a**2 + b**2 + 2 * a * b * along), measured.gradient_norm, rtol=1e-4
    )


def test_inference_takes_the_gradient_of_the_moving_statistics():
    model = three_stages(shortcut="dropout")
    images, labels = sample()
    measured = analysis.backward(model, images, labels, training=False)
    with tf.GradientTape() as tape:
        tape.watch(x := model.get_layer("stem_conv")(images))
        y = x
        for layer in model.layers[2:]:
            y = layer(y, training=False)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y))
    np.testing.assert_allclose(measured.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(
        measured.gradient_norm[0], np.linalg.norm(tape.gradient(loss, x)), rtol=1e-5
    )


# Measured in nets of depth 20 and 56 as well: see `backward_pass.tolerance`.
@pytest.mark.parametrize(("dtype", "error"), [("mixed_bfloat16", 0.1), ("mixed_float16", 0.02)])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_in_half_precision_the_terms_add_up_to_its_rounding(shortcut, dtype, error):
    exact = three_stages(shortcut=shortcut)
    keras.config.set_dtype_policy(dtype)
    model = three_stages(shortcut=shortcut)
    model.set_weights(exact.get_weights())
    images, labels = sample()
    measured = analysis.backward(model, images, labels)
    np.testing.assert_array_less(measured.split_error, error)
    reference = analysis.backward(exact, images, labels)
    if shortcut != "dropout":
        for name in ("gradient_norm", "shortcut_norm", "residual_norm"):
            expected, found = getattr(reference, name), getattr(measured, name)
            np.testing.assert_allclose(found, expected, rtol=5 * error, atol=1e-30, err_msg=name)


def test_a_loss_of_ones_own_is_differentiated():
    model = three_stages()
    images, labels = sample()

    def sum_of_chosen(labels, outputs):
        return 1e-3 * tf.reduce_sum(tf.gather(outputs, labels, axis=1, batch_dims=1))

    measured = analysis.backward(model, images, labels, loss=sum_of_chosen)
    chosen = model(images, training=True).numpy()[np.arange(4), labels]
    np.testing.assert_allclose(measured.loss, 1e-3 * chosen.sum(), rtol=1e-5)
    # dE/dx_L by hand: the kernel's columns, through the mean over pixels and the last BN, ReLU.
    logits, bn = model.get_layer("logits"), model.get_layer("head_bn")
    _, (*_, last) = one_tape(model, images, labels)
    features = keras.Model(model.inputs[0], bn.input)
    with tf.GradientTape() as tape:
        tape.watch(x := features(images, training=True))
        pooled = tf.reduce_mean(tf.nn.relu(bn(x, training=True)), axis=(1, 2))
        value = sum_of_chosen(labels, pooled @ logits.kernel + logits.bias)
    gradient = np.linalg.norm(tape.gradient(value, x))
    np.testing.assert_allclose(measured.output_gradient_norm, gradient, rtol=1e-5)
    assert abs(np.linalg.norm(last) / gradient - 1) > 0.1


def test_probabilities_and_logits_have_one_loss_and_gradient():
    images, labels = sample()
    logits = three_stages()
    softmax = ResNetV2(
        8, width_multiplier=0.25, input_shape=(8, 8, 3), classes=3, classifier_activation="softmax"
    )
    softmax.set_weights(logits.get_weights())
    a, b = (analysis.backward(model, images, labels) for model in (logits, softmax))
    np.testing.assert_allclose(b.loss, a.loss, rtol=1e-5)
    np.testing.assert_allclose(b.gradient_norm, a.gradient_norm, rtol=1e-4)


def test_a_unit_whose_taps_are_not_what_it_computes_is_named():
    class Wrong(ResidualUnit):
        def call(self, x, training=None, return_taps=False):
            taps = super().call(x, training=training, return_taps=True)
            if not return_taps:
                return taps.output
            forgotten = taps.residual * 0.9
            y = taps.shortcut + forgotten
            return taps._replace(residual=forgotten, sum=y, output=y)

    x = inputs = keras.Input(SHAPE)
    for number, unit in enumerate((ResidualUnit, Wrong, ResidualUnit), 1):
        x = unit(4, name=f"unit{number}")(x)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ArithmeticError, match=r"Received: unit2, where they differ by .* float32"):
        analysis.backward(keras.Model(inputs, outputs), *sample(SHAPE))


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ([0, 1, 2], "shape (3,) and type int64"),
        ([0, 1, 2, 3], "shape (4,) and type int64"),
        ([0, -1, 2, 1], "shape (4,) and type int64"),
        ([0.0, 1.0, 2.0, 1.0], "type float64"),
        ([[0], [1], [2], [1]], "shape (4, 1)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, received):
    with pytest.raises(ValueError, match="labels must be a whole number from 0 to 2") as raised:
        analysis.backward(three_stages(), sample()[0], labels)
    assert received in str(raised.value)


def test_a_map_of_outputs_needs_a_loss_of_its_own():
    model = three_stages(include_top=False)
    images, labels = sample()
    with pytest.raises(ValueError, match=r"must return \(batch, classes\)"):
        analysis.backward(model, images, labels)
    measured = analysis.backward(model, images, labels, loss=lambda _, y: tf.reduce_mean(y**2))
    np.testing.assert_array_less(measured.split_error, 1e-5)


class Halving(Shortcut):
    """A custom shortcut that defines only the sum."""

    def call(self, x, residual):
        return 0.5 * x + residual


def test_the_factor_of_a_shortcut_of_ones_own_is_measured():
    model = chain_of_units(4, SHAPE, shortcut=Halving())
    measured = analysis.backward(model, *sample(SHAPE))
    np.testing.assert_allclose(measured.shortcut_factor, 0.5, rtol=1e-6)
    np.testing.assert_allclose(measured.shortcut_product, 0.5 ** np.arange(4, 0, -1), rtol=1e-6)
    ratio = measured.shortcut_norm / measured.output_gradient_norm
    np.testing.assert_allclose(ratio, 0.5 ** np.arange(4, 0, -1), rtol=1e-5)


@pytest.mark.parametrize(
    ("policy", "dtype"), [("float32", "float64"), ("mixed_bfloat16", "float32")]
)
def test_units_may_take_images_of_another_precision(policy, dtype):
    keras.config.set_dtype_policy(policy)
    model = chain_of_units(2, SHAPE)
    images, labels = sample(SHAPE)
    measured = analysis.backward(model, images.astype(dtype), labels)
    assert np.isfinite(measured.gradient_norm).all()
