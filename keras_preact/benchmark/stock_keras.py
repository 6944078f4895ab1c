"""The same network of Keras' own layers, in `model.fit`, `model.predict` and `model.export`."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_preact.benchmark.on_tensorflow import MEAN, STD, device, prepare_serving

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job, Net

__all__ = ["build", "device", "export", "prepare"]

# As ours, whatever Keras' global format is.
_FORMAT = {"data_format": "channels_last"}


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds and compiles the network, with jit_compile="auto" as is Keras' default.

    The batch of noise lies in host memory, as uint8, and is normalized in the graph; the input
    pipeline only repeats it: no pipeline is cheaper. Exports take it as float32.

    Returns:
        take(steps), which returns the seconds that the steps took, including the last
        result's way to the host, without the preparations of fit and predict.
    """
    shape = (job.image_size, job.image_size, 3)
    rng = np.random.default_rng(0)
    if job.mode == "serving":
        images = rng.standard_normal((job.batch_size, *shape), np.float32)
        return prepare_serving(lambda folder: export(job, folder), images)
    images = rng.integers(0, 256, (job.batch_size, *shape), np.uint8)
    keras.config.set_dtype_policy(job.precision)
    model = build(job.net, shape, normalizes=True)
    labels = rng.integers(0, job.net.classes, job.batch_size, np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # No callback for single batches: fit would wait after each of them.
    begin = _Begin()
    options = {"verbose": 0, "callbacks": [begin]}

    def take(steps):
        if job.mode == "train":
            model.fit(batches, steps_per_epoch=steps, shuffle=False, **options)
        else:
            model.predict(batches, steps=steps, **options)
        return time.perf_counter() - begin.seconds

    return take


def export(job: "Job", folder: str) -> None:
    """Writes the network with `model.export`: a SavedModel for TensorFlow Serving."""
    keras.config.set_dtype_policy(job.precision)
    build(job.net, (job.image_size, job.image_size, 3)).export(folder, verbose=False)


class _Begin(keras.callbacks.Callback):
    """Remembers when the steps began."""

    def on_epoch_begin(self, epoch, logs=None):
        self.seconds = time.perf_counter()

    def on_predict_begin(self, logs=None):
        self.seconds = time.perf_counter()


def build(net: "Net", input_shape: tuple[int, int, int], normalizes: bool = False) -> keras.Model:
    """The functional model, from (batch, height, width, 3) to float32 logits (batch, classes).

    Layers are named as ours, with _ for the / between a unit and its layer.

    Args:
        net: the network.
        input_shape: (height, width, 3).
        normalizes: whether images are uint8 and normalized first, not float32.
    """
    inputs = keras.Input(input_shape, dtype="uint8" if normalizes else None)
    x = inputs
    if normalizes:
        x = layers.Rescaling(1 / STD, -MEAN / STD, dtype="float32")(x)
    x = _run(net.stem, x)
    for unit in net.units:
        x = _unit(x, unit)
    x = _run(net.head, x)
    x = layers.GlobalAveragePooling2D(dtype="float32", **_FORMAT)(x)
    return keras.Model(inputs, layers.Dense(net.classes, dtype="float32", name="logits")(x))


def _unit(x, unit):
    prefix = f"{unit.name}_"
    activated = _run(unit.preactivation, x, prefix)
    residual = _run(unit.residual, activated, prefix)
    shortcut = _run(unit.projection, activated if unit.shares_preactivation else x, prefix)
    return _run(unit.after_addition, layers.Add()([shortcut, residual]), prefix)


def _run(operations, x, prefix=""):
    for operation in operations:
        name = f"{prefix}{operation.name}"
        match operation.kind:
            case "conv":
                x = _conv(x, operation, name)
            case "bn":
                x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
            case "relu":
                x = layers.ReLU()(x)
            case "max_pool":
                x = _max_pool(x, operation)
            case "zero_pad":
                x = _zero_pad(x, operation)
    return x


def _conv(x, operation, name):
    options = {"use_bias": False, "kernel_initializer": "he_normal", "name": name, **_FORMAT}
    filters, size, strides = operation.filters, operation.kernel_size, operation.strides
    if strides == 1:
        return layers.Conv2D(filters, size, padding="same", **options)(x)
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, **_FORMAT)(x)
    return layers.Conv2D(filters, size, strides, **options)(x)


def _max_pool(x, operation):
    pad = (operation.kernel_size // 2,) * 2
    # Zeros would win over the negative values of a signal that is not yet rectified.
    x = keras.ops.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=float("-inf"))
    return layers.MaxPooling2D(operation.kernel_size, operation.strides, **_FORMAT)(x)


def _zero_pad(x, operation):
    x = x[:, :: operation.strides, :: operation.strides, :]
    new = operation.filters - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
