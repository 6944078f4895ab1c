"""The same network of Keras' own layers, in `model.fit`, `model.predict` and `model.export`."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_preact.benchmark import serving
from keras_preact.benchmark.tensorflow_device import device

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job, Net

__all__ = ["build", "device", "prepare"]

# As ours has it, whatever Keras' global format is.
_FORMAT = {"data_format": "channels_last"}


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds and compiles the network, with jit_compile="auto" as is Keras' default.

    The batch of float32 noise lies in host memory, and the input pipeline only
    repeats it: no pipeline is cheaper.

    Returns:
        take(steps), which returns the seconds that so many steps took, the last
        result's way to the host included, what fit and predict do before them not.
    """
    keras.config.set_dtype_policy(job.precision)
    shape = (job.image_size, job.image_size, 3)
    model = build(job.net, shape)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((job.batch_size, *shape), np.float32)
    if job.mode == "serving":
        return serving.prepare(lambda folder: model.export(folder, verbose=False), images)
    labels = rng.integers(0, job.net.classes, job.batch_size, np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # Without methods for single batches, which would make fit wait after each of them.
    begin = _Begin()
    options = {"verbose": 0, "callbacks": [begin]}

    def take(steps):
        if job.mode == "train":
            model.fit(batches, steps_per_epoch=steps, shuffle=False, **options)
        else:
            model.predict(batches, steps=steps, **options)
        return time.perf_counter() - begin.seconds

    return take


class _Begin(keras.callbacks.Callback):
    """Remembers when the steps began."""

    def on_epoch_begin(self, epoch, logs=None):
        self.seconds = time.perf_counter()

    def on_predict_begin(self, logs=None):
        self.seconds = time.perf_counter()


def build(net: "Net", input_shape: tuple[int, int, int]) -> keras.Model:
    """The functional model, from (batch, height, width, 3) to float32 logits (batch, classes).

    Layers are named as ours, with _ for the / between a unit and its layer.
    """
    inputs = keras.Input(input_shape)
    if net.stem == "imagenet":
        x = _conv(inputs, net.stem_filters, 7, 2, "stem_conv")
        # Zeros would win over the negative values of a signal that is not yet rectified.
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = keras.ops.pad(x, padding, constant_values=float("-inf"))
        x = layers.MaxPooling2D(3, 2, **_FORMAT)(x)
    else:
        x = _conv(inputs, net.stem_filters, 3, 1, "stem_conv")
    for unit in net.units:
        x = _unit(x, unit)
    x = _bn_relu(x, "head_bn")
    x = layers.GlobalAveragePooling2D(dtype="float32", **_FORMAT)(x)
    return keras.Model(inputs, layers.Dense(net.classes, dtype="float32", name="logits")(x))


def _unit(x, unit):
    residual = activated = _bn_relu(x, f"{unit.name}_preact_bn")
    for number, (filters, kernel_size, strides) in enumerate(unit.convolutions, 1):
        if number > 1:
            residual = _bn_relu(residual, f"{unit.name}_bn{number}")
        residual = _conv(residual, filters, kernel_size, strides, f"{unit.name}_conv{number}")
    shortcut = activated if unit.shares_preactivation else x
    if unit.match == "convolution":
        name = f"{unit.name}_projection_conv"
        shortcut = _conv(shortcut, unit.channels, 1, unit.strides, name)
    elif unit.match == "zero_pad":
        new = unit.channels - shortcut.shape[-1]
        shortcut = shortcut[:, :: unit.strides, :: unit.strides, :]
        padding = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
        shortcut = keras.ops.pad(shortcut, padding)
    return layers.Add()([shortcut, residual])


def _bn_relu(x, name):
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x))


def _conv(x, filters, kernel_size, strides, name):
    options = {"use_bias": False, "kernel_initializer": "he_normal", "name": name, **_FORMAT}
    if strides == 1:
        return layers.Conv2D(filters, kernel_size, padding="same", **options)(x)
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, **_FORMAT)(x)
    return layers.Conv2D(filters, kernel_size, strides, **options)(x)
