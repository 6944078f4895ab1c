"""Float32 TFLite files of small residual networks, and their images."""

import numpy as np
import tensorflow as tf
from tiny_nets import SHAPE, make_info

import keras_preact
from keras_preact.exporting.formats import saved_model, tflite
from keras_preact.exporting.graph import network, rewriting


def make_model(depth=8, **options):
    """A network whose moving statistics are those of its activations, as after training."""
    tf.keras.utils.set_random_seed(0)
    options = {"input_shape": SHAPE, "classes": 7, **options}
    model = keras_preact.ResNetV2(depth, **options)
    norms = [layer for layer in model._flatten_layers() if hasattr(layer, "momentum")]
    for norm in norms:
        norm.momentum = 0.0
    model(normalized(make_images(64, seed=1)), training=True)
    return model


def make_images(count, seed=0):
    """Smooth images, as photographs are, each of other colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 256, (count, 3, 4, SHAPE[-1]))
    noise = rng.uniform(-20, 20, (count, *SHAPE))
    return np.clip(coarse.repeat(3, 1).repeat(2, 2) + noise, 0, 255).astype(np.uint8)


def normalized(images):
    info = make_info()
    return ((images - np.array(info.mean)) / np.array(info.std)).astype(np.float32)


def save(folder, model):
    """Writes the SavedModel that TFLite files are made of."""
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    saved_model.write_for_tflite(graph, make_info().preprocessing, folder)
    return folder


def exact_file(folder, model):
    """The contents of the float32 file."""
    return tflite.convert(save(folder, model), "float32")


def streams(model, images):
    """The output of each residual unit, by the unit's name, from Keras' own layers."""
    x, found = normalized(images), {}
    for layer in model.layers[1:]:
        x = layer(x, training=False)
        if "_unit" in layer.name:
            found[layer.name] = x.numpy()
    return found
