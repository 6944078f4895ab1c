"""Small chains of residual units, and their gradients by one tape over the whole network."""

import keras
import numpy as np
import tensorflow as tf
from random_weights import randomize

from keras_preact.layers import BLOCKS, Conv2D, ResidualUnit
from keras_preact.models import ResNetV2

CLASSES = 3

# Depths with one unit in each of three stages, by block.
DEPTHS = {"single": 5, "basic": 8, "bottleneck": 11}


def chain_of_units(count, shape=(6, 6, 4), top=True, **arguments):
    """Input -> units of one width -> global average pooling -> logits; randomized."""
    x = inputs = keras.Input(shape)
    expansion = 4 if arguments.get("block") == "bottleneck" else 1
    for number in range(1, count + 1):
        x = ResidualUnit(shape[-1] // expansion, name=f"unit{number}", **arguments)(x)
    if top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(CLASSES, name="logits")(x)
    return randomize(keras.Model(inputs, x))


def three_stages(block="basic", units=1, **arguments):
    """A network of three stages for 8 x 8 images in colour, randomized."""
    depth = 2 + units * (DEPTHS[block] - 2)
    arguments = {"width_multiplier": 0.25, "input_shape": (8, 8, 3), **arguments}
    return randomize(ResNetV2(depth, block=block, stem="cifar", classes=CLASSES, **arguments))


def every_block(order, shortcut, first=0):
    """One unit of each block for 8 x 8 images: the first of a network, one that halves, a third.

    Args:
        order, shortcut: of all units.
        first: index of the first block.
    """
    x = inputs = keras.Input((8, 8, 3))
    x = Conv2D(8, 3, name="stem_conv")(x)
    blocks = [*BLOCKS, *BLOCKS][first : first + 3]
    for number, (block, strides) in enumerate(zip(blocks, (1, 2, 1), strict=True)):
        x = ResidualUnit(
            8 // BLOCKS[block][1],
            strides,
            block=block,
            order=order,
            shortcut=shortcut,
            first_in_network=number == 0,
            name=block,
        )(x)
    x = keras.layers.ReLU(name="head_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x)))


def sample(shape=(8, 8, 3), batch=4, seed=2):
    """(images, labels)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, batch)
    return rng.normal(size=(batch, *shape)).astype(keras.config.floatx()), labels


def one_tape(model, images, labels):
    """(loss, gradients at the input of each unit and at the last one's output).

    One tape over the ordinary calls of all layers, which run as in training.
    """
    with tf.GradientTape() as tape:
        x, signals, last = tf.convert_to_tensor(images), [], None
        for layer in model.layers[1:]:
            is_unit = isinstance(layer, ResidualUnit)
            if is_unit:
                tape.watch(x)
                signals.append(x)
            x = layer(x, training=True)
            last = x if is_unit else last
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x))
    return float(loss), [gradient.numpy() for gradient in tape.gradient(loss, [*signals, last])]


def norms(tensors):
    return np.array([np.linalg.norm(np.asarray(tensor, "float64")) for tensor in tensors])
