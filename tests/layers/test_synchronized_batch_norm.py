"""Batch normalization over two replicas, against NumPy and against one device."""

import numpy as np
import pytest
import tensorflow as tf
from replicas import (
    CHANNELS,
    NAMES,
    distributed,
    float64,
    forward_and_backward,
    images,
    in_numpy,
    made,
    of_replicas,
    on_one_device,
    on_two_replicas,
    upstream,
)

from keras_preact.layers import BatchNormalization, ResidualUnit

# Relative to the largest value. bfloat16 keeps 8 bits of a number and float16 11; each rounding
# loses half of the last.
TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "mixed_float16": 3e-3, "float64": 1e-12}
# Images of the first and the second of two replicas.
SHARES = {"equal": (4, 4), "unequal": (3, 5), "none_on_one": (8, 0)}


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def assert_close(results, expected, tolerance):
    for name, result, wanted in zip(NAMES, results, expected, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(result / scale, wanted / scale, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_two_replicas_compute_what_numpy_and_one_device_do_of_the_global_batch(
    dtype, shares, strategy
):
    with strategy.scope():
        layer = made(dtype=dtype, synchronized=True)
    x, gradients = images(), upstream()
    expected = in_numpy(layer, x, gradients)
    results = on_two_replicas(strategy, layer, x, gradients, shares)
    assert_close(results, expected, TOLERANCE[dtype])
    assert_close(results, on_one_device(made(dtype=dtype), x, gradients), TOLERANCE[dtype])
    for name in NAMES[4:]:
        first, second = of_replicas(strategy, getattr(layer, name))
        np.testing.assert_array_equal(first, second)


def test_without_synchronization_each_replica_has_statistics_of_its_own(strategy):
    with strategy.scope():
        layer = made(momentum=0.0)
    x = images()
    on_two_replicas(strategy, layer, x, upstream(), (3, 5))
    for mean, own in zip(of_replicas(strategy, layer.moving_mean), (x[:3], x[3:]), strict=True):
        np.testing.assert_allclose(mean, own.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_variance_of_images_with_a_large_mean_is_accurate(dtype, strategy):
    with strategy.scope():
        layer = made(dtype=dtype, synchronized=True, momentum=0.0)
    x = images(mean=100, std=1)
    on_two_replicas(strategy, layer, x, upstream(), (3, 5))
    exact = float64(tf.constant(x, layer.compute_dtype)).var((0, 1, 2))
    # float32 has steps of 8e-6 at 100. The mean of squares less the square of the mean
    # would be off by 1e-3.
    np.testing.assert_allclose(of_replicas(strategy, layer.moving_variance)[0], exact, rtol=2e-5)


@pytest.fixture
def reductions(monkeypatch):
    """The number of values in each all-reduce of a replica."""
    sizes, original = [], tf.distribute.ReplicaContext.all_reduce

    def all_reduce(self, reduce_op, value, options=None):
        sizes.append(int(np.prod(value.shape)))
        return original(self, reduce_op, value, options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", all_reduce)
    return sizes


def test_a_step_takes_one_all_reduce_forward_and_one_backward(reductions, strategy):
    with strategy.scope():
        layer = made(synchronized=True)
    on_two_replicas(strategy, layer, images(), upstream(), (4, 4))
    # Mean, variance and count of each replica; then the sums of dy and dy times normalized x.
    forward, backward = 2 * (2 * CHANNELS + 1), 2 * CHANNELS
    assert sorted(reductions) == sorted(2 * [forward, backward])


@pytest.mark.parametrize("case", ["frozen", "inference"])
def test_a_layer_that_normalizes_with_moving_statistics_exchanges_nothing(
    case, reductions, strategy
):
    with strategy.scope():
        layer = made(synchronized=True, trainable=case != "frozen")
    before = [v.numpy() for v in layer.variables]
    x = distributed(strategy, images(), (4, 4), "float32")
    y = strategy.run(lambda x: layer(x, training=case != "inference"), (x,))
    assert not reductions
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    gamma, beta, mean, variance = before
    expected = (images() - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    parts = np.concatenate(strategy.experimental_local_results(y))
    np.testing.assert_allclose(parts, expected, rtol=1e-4, atol=1e-4)


def test_one_replica_computes_to_the_bit_what_an_unsynchronized_layer_does(reductions):
    layers = [made(synchronized=synchronized) for synchronized in (True, False)]
    results = [on_one_device(layer, images(), upstream()) for layer in layers]
    alone = tf.distribute.OneDeviceStrategy("CPU:0")
    with alone.scope():
        layer = made(synchronized=True)
    tensors = [tf.constant(v, "float32") for v in (images(), upstream())]
    run = alone.run(lambda *values: forward_and_backward(layer, *values), tensors)
    results.append([float64(v) for v in (*run, layer.moving_mean, layer.moving_variance)])
    assert not reductions
    for first, second, third in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)


def test_the_graph_of_two_replicas_has_the_fused_kernel_only(strategy):
    with strategy.scope():
        layer = made(dtype="mixed_bfloat16", synchronized=True)
    values = [distributed(strategy, v, (4, 4), "bfloat16") for v in (images(), upstream())]
    step = tf.function(
        lambda *values: strategy.run(lambda *own: forward_and_backward(layer, *own), values)
    )
    operations = step.get_concrete_function(*values).graph.get_operations()
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= {op.type for op in operations}
    # Images stay in 16 bits: only the kernel converts them.
    images_in_float32 = [
        op.name
        for op in operations
        for output in op.outputs
        if output.dtype == tf.float32 and output.shape.rank == 4
    ]
    assert not images_in_float32


@pytest.mark.parametrize("nesting", ["function", "control_flow"])
def test_a_call_from_inside_another_function_is_refused_by_tensorflow(nesting, strategy):
    with strategy.scope():
        layer = made(synchronized=True)

    def call(x):
        if nesting == "function":
            return tf.function(layer)(x, training=True)
        return tf.cond(tf.reduce_sum(x) > 0, lambda: layer(x, training=True), lambda: x)

    x = distributed(strategy, images(), (4, 4), "float32")
    with pytest.raises(RuntimeError, match="merge_call"):
        tf.function(lambda x: strategy.run(call, (x,)))(x)


def test_a_built_unit_can_be_synchronized_by_its_attributes(strategy):
    def build():
        unit = ResidualUnit(CHANNELS, order="original", name="unit")
        unit.build((None, 6, 7, CHANNELS))
        rng = np.random.default_rng(3)
        for variable in unit.trainable_variables:
            variable.assign(rng.uniform(-0.5, 0.5, variable.shape))
        return unit

    with strategy.scope():
        unit = build()
    for layer in unit.residual_function:
        if isinstance(layer, BatchNormalization):
            layer.synchronized = True
    x = distributed(strategy, images(), (3, 5), "float32")

    @tf.function
    def step(x):
        return strategy.run(lambda x: unit(x, training=True), (x,))

    y = np.concatenate(strategy.experimental_local_results(step(x)))
    alone = build()
    expected = alone(images().astype("float32"), training=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    for ours, its in zip(unit.variables, alone.variables, strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=1e-5, err_msg=its.path)


def test_the_configuration_keeps_whether_a_layer_is_synchronized():
    assert BatchNormalization().synchronized is False
    layer = BatchNormalization()
    layer.synchronized = True
    assert BatchNormalization.from_config(layer.get_config()).synchronized is True
