"""BN where TensorFlow is deterministic and has a GPU: its kernel refuses some gradients there."""

import numpy as np
import pytest
import tensorflow as tf
from replicas import (
    NAMES,
    forward_and_backward,
    images,
    in_numpy,
    made,
    on_one_device,
    on_two_replicas,
    upstream,
)
from tensorflow.python.framework.config import disable_op_determinism

TOLERANCE = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "mixed_float16": 3e-3}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A GPU that TensorFlow names but does not use."""
    here = tf.config.list_physical_devices
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind=None: [gpu] if kind == "GPU" else here(kind),
    )


@pytest.fixture
def deterministic(on_a_gpu):
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def assert_close(results, expected, tolerance):
    for name, result, wanted in zip(NAMES, results, expected, strict=False):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(result / scale, wanted / scale, atol=tolerance, err_msg=name)


def refused_operations(function, *arguments):
    """Kernels whose gradient TensorFlow refuses to compute on a GPU."""
    graph = function.get_concrete_function(*arguments).graph
    operations = [op for op in graph.get_operations() if op.type.startswith("FusedBatchNormGrad")]
    return [op.name for op in operations if not op.get_attr("is_training")]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_synchronized_bn_computes_what_the_kernel_does(deterministic, strategy, dtype):
    with strategy.scope():
        layer = made(dtype=dtype, synchronized=True)
    expected = in_numpy(layer, images(), upstream())
    results = on_two_replicas(strategy, layer, images(), upstream(), (3, 5))
    assert_close(results, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_frozen_layer_computes_what_the_kernel_does(on_a_gpu, dtype):
    layer = made(dtype=dtype, trainable=False)
    by_kernel = on_one_device(layer, images(), upstream())
    tf.config.experimental.enable_op_determinism()
    try:
        plain = on_one_device(layer, images(), upstream())
    finally:
        disable_op_determinism()
    assert_close(plain, by_kernel, TOLERANCE[dtype])


def test_no_gradient_is_left_that_tensorflow_refuses(deterministic, strategy):
    x, gradients = (tf.constant(v, tf.float32) for v in (images(), upstream()))
    frozen = made(trainable=False)
    assert not refused_operations(
        tf.function(lambda *v: forward_and_backward(frozen, *v)), x, gradients
    )
    with strategy.scope():
        layer = made(synchronized=True)

    @tf.function
    def step(*values):
        return strategy.run(lambda *own: forward_and_backward(layer, *own), values)

    assert not refused_operations(step, x, gradients)


def test_elsewhere_the_kernel_stays():
    x, gradients = (tf.constant(v, tf.float32) for v in (images(), upstream()))
    frozen = made(trainable=False)
    assert refused_operations(
        tf.function(lambda *v: forward_and_backward(frozen, *v)), x, gradients
    )
