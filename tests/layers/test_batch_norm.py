"""The fused batch normalization against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.layers import BatchNormalization

# bfloat16 keeps 8 bits of a number: one rounding is off by up to 2**-9 of it.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "float64": 1e-12}


def ours_and_keras(dtype, channels=5, **arguments):
    """Our layer and Keras' with the paper's constants, both with the same random variables."""
    ours = BatchNormalization(dtype=dtype, **arguments)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, **arguments)
    rng = np.random.default_rng(1)
    values = {name: rng.uniform(0.5, 2, channels) for name in ("gamma", "moving_variance")}
    values |= {name: rng.normal(size=channels) for name in ("beta", "moving_mean")}
    for layer in (ours, theirs):
        layer.build((None, 6, 7, channels))
        for name, value in values.items():
            getattr(layer, name).assign(value)
    return ours, theirs


def images(seed=0, dtype="float32"):
    # Mean and variance are far from 0 and 1, so that forgetting either one shows.
    x = np.random.default_rng(seed).normal(3, 2, (4, 6, 7, 5))
    return tf.constant(x, keras.DTypePolicy(dtype).compute_dtype)


def output_and_gradients(layer, x, training):
    upstream = tf.cast(np.random.default_rng(2).normal(size=x.shape), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    gamma, beta = layer.gamma.value, layer.beta.value
    return [y, *tape.gradient(y, [x, gamma, beta], output_gradients=upstream)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_outputs_and_gradients_equal_those_of_keras(dtype, training):
    ours, theirs = ours_and_keras(dtype)
    x = images(dtype=dtype)
    results = [output_and_gradients(layer, x, training) for layer in (ours, theirs)]
    for name, our, their in zip(("y", "x", "gamma", "beta"), *results, strict=True):
        our, their = (np.asarray(tf.cast(v, "float64")) for v in (our, their))
        # Gradients of gamma and beta are sums over many pixels: compare with the largest.
        scale = np.abs(their).max()
        np.testing.assert_allclose(our / scale, their / scale, atol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_moving_statistics_after_several_steps_equal_those_of_keras(dtype):
    ours, theirs = ours_and_keras(dtype)
    for seed in range(5):
        for layer in (ours, theirs):
            layer(images(seed, dtype), training=True)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=max(TOLERANCE[dtype] / 10, 1e-6)
        )


def test_moving_variance_averages_the_biased_variance():
    # With 4 values a channel the unbiased variance, which the kernel reports, is 4/3 of it.
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype("float32")
    layer = BatchNormalization(momentum=0.0)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, x.var(axis=(0, 1, 2)), rtol=1e-5)


def test_one_pixel_is_normalized_to_beta_and_has_no_variance():
    layer = BatchNormalization(momentum=0.0)
    y = layer(np.full((1, 1, 1, 3), 7.0, "float32"), training=True)
    np.testing.assert_array_equal(y, np.zeros((1, 1, 1, 3)))
    np.testing.assert_array_equal(layer.moving_mean, [7.0, 7.0, 7.0])
    np.testing.assert_array_equal(layer.moving_variance, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("training", [True, False])
def test_epsilon_is_exactly_the_one_given(training):
    # TensorFlow's wrapper of the kernel raises it to 1.001e-5, half a per mille of this output.
    layer = BatchNormalization(epsilon=1e-5)
    layer.build((None, 1, 2, 1))
    layer.moving_variance.assign([0.0])
    x = np.array([-1e-4, 1e-4], "float32").reshape(1, 1, 2, 1)
    variance = 1e-8 if training else 0.0
    expected = x / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-5)


def test_a_frozen_layer_normalizes_with_its_moving_statistics_and_keeps_them():
    ours, theirs = ours_and_keras("float32", trainable=False)
    before = [v.numpy() for v in ours.variables]
    trained, inferred = (ours(images(), training=mode) for mode in (True, False))
    np.testing.assert_array_equal(trained, inferred)
    np.testing.assert_allclose(trained, theirs(images(), training=True), rtol=1e-5, atol=1e-5)
    for variable, value in zip(ours.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_layer_that_keeps_its_statistics_normalizes_with_them_and_learns_gamma_and_beta(dtype):
    ours, theirs = ours_and_keras(dtype)
    ours.keeps_statistics = True
    x, before = images(dtype=dtype), [v.numpy() for v in ours.non_trainable_variables]
    results = [
        output_and_gradients(layer, x, training)
        for layer, training in ((ours, True), (theirs, False))
    ]
    for our, their in zip(*results, strict=True):
        our, their = (np.asarray(tf.cast(v, "float64")) for v in (our, their))
        scale = np.abs(their).max()
        np.testing.assert_allclose(our / scale, their / scale, atol=TOLERANCE[dtype])
    for variable, value in zip(ours.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert "keeps_statistics" not in ours.get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_variables_and_batch_statistics_are_float32_under_mixed_precision(policy):
    layer = BatchNormalization(momentum=0.0, dtype=policy)
    # The sum of 4096 values near 300 overflows float16, and bfloat16 has steps of 2 near 300.
    x = np.random.default_rng(0).normal(300, 1, (16, 16, 16, 2))
    rounded = tf.cast(x, layer.compute_dtype)
    y = layer(rounded, training=True)
    assert y.dtype == layer.compute_dtype
    assert {v.dtype for v in layer.variables} == {"float32"}
    exact = tf.cast(rounded, "float64").numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, exact, rtol=1e-6)


def operations_in_the_graph(dtype, training):
    layer = BatchNormalization(dtype=dtype)
    layer.build((None, 6, 7, 5))

    @tf.function
    def forward_and_backward(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return tape.gradient(y, x)

    graph = forward_and_backward.get_concrete_function(images(dtype=dtype)).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_compiled_graph_has_the_fused_kernel_forward_and_backward(dtype, training):
    operations = operations_in_the_graph(dtype, training)
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= operations
    # Only the kernel divides by the standard deviation.
    assert "Rsqrt" not in operations


def test_float64_images_stay_float64_without_the_fused_kernel():
    assert "FusedBatchNormV3" not in operations_in_the_graph("float64", training=True)
    layer = BatchNormalization(dtype="float64")
    assert layer(images(dtype="float64"), training=True).dtype == "float64"


def test_the_defaults_are_the_papers_and_the_configuration_keeps_others():
    assert BatchNormalization().momentum == 0.9
    assert BatchNormalization().epsilon == 1e-5
    layer = BatchNormalization(momentum=0.97, epsilon=1e-3, name="bn", trainable=False)
    copy = BatchNormalization.from_config(layer.get_config())
    assert (copy.momentum, copy.epsilon, copy.name, copy.trainable) == (0.97, 1e-3, "bn", False)


@pytest.mark.parametrize("argument", [{"momentum": 1.1}, {"momentum": -0.1}, {"epsilon": 0.0}])
def test_constants_outside_their_range_are_refused(argument):
    (name, value), *_ = argument.items()
    with pytest.raises(ValueError, match=rf"^{name} must be .* Received: {name}={value}"):
        BatchNormalization(**argument)


@pytest.mark.parametrize("shape", [(2, 5), (None, 4, 5), (None, 4, 4, None)])
def test_other_inputs_than_images_with_known_channels_are_refused(shape):
    with pytest.raises(ValueError, match="Received: input_shape="):
        BatchNormalization().build(shape)
