"""Small networks to export; each parameter influences their answers."""

import collections

import keras
import numpy as np
import tensorflow as tf

import keras_preact
from keras_preact.data import DatasetInfo
from keras_preact.exporting.formats import saved_model
from keras_preact.exporting.graph import network, rewriting

SHAPE = (9, 8, 3)
NAMES = ("ant", "bee", "gnú", "cat", "dog", "eel", "fox")
DEPTHS = {"single": 5, "basic": 8, "bottleneck": 11}
FUSED_BN = "FusedBatchNormV3"

# Parameters and statistics that start at 0 or 1.
RANGES = {
    "gamma": (-1.5, 1.5),
    "beta": (-0.5, 0.5),
    "moving_mean": (-0.5, 0.5),
    "moving_variance": (0.05, 0.5),
    "bias": (-1.0, 1.0),
}


def make_info(image_shape=SHAPE, class_names=NAMES, resize_ratio=1.0):
    channels = image_shape[-1]
    return DatasetInfo(
        name="test",
        class_names=class_names,
        image_shape=image_shape,
        train_count=1,
        eval_count=1,
        mean=(100.0, 110.0, 120.0)[:channels],
        std=(50.0, 60.0, 70.0)[:channels],
        resize_ratio=resize_ratio,
    )


def perturbed(model):
    """The model, with random values for parameters that start at 0 or 1."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in RANGES:
            variable.assign(rng.uniform(*RANGES[variable.name], variable.shape))
    return model


def make_resnet(block="basic", *, input_shape=SHAPE, **options):
    depth = DEPTHS[block]
    return perturbed(
        keras_preact.ResNetV2(depth, block=block, input_shape=input_shape, classes=7, **options)
    )


def make_net(compute, input_shape=SHAPE):
    """A classifier on the feature map compute(images)."""
    images = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D()(compute(images))
    return perturbed(keras.Model(images, keras.layers.Dense(7, name="logits")(x)))


class Function(keras.layers.Layer):
    """A function as a layer without variables."""

    def __init__(self, function, output_shape=None):
        super().__init__()
        self.function, self.shape_after = function, output_shape

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *(self.shape_after or input_shape[1:]))


def normalized_images(count=3):
    """Noise around a different colour in each image, so that poolings differ."""
    rng = np.random.default_rng(1)
    colours = rng.normal(scale=2, size=(count, 1, 1, SHAPE[-1]))
    return (colours + rng.normal(size=(count, *SHAPE))).astype(np.float32)


def images_of(info, count=3):
    """The same as uint8."""
    return np.clip(normalized_images(count) * info.std + info.mean, 0, 255).astype(np.uint8)


def keras_outputs(model, images):
    """Logits and features, from Keras' own layers one after another."""
    classifier = model.get_layer("logits")
    network = keras.Model(model.input, [classifier.output, classifier.input])
    logits, features = network(images, training=False)
    return {"logits": logits.numpy(), "features": features.numpy()}


def run(graph, images):
    """The outputs of an `InferenceGraph` in a plain session."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    with tf.compat.v1.Session(graph=imported) as session:
        feed = {f"{name}:0": value for name, value in graph.weights.items()}
        return session.run(dict(graph.outputs), {f"{graph.input}:0": images, **feed})


def assert_same(got, expected):
    """Asserts that outputs are equal but for rounding in float32."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        atol = 2e-5 * max(1, np.abs(value).max())
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=atol, err_msg=name)


def rewritten(model):
    """The rewritten graph; asserts that it computes what Keras does."""
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    images = normalized_images()
    assert_same(run(graph, images), keras_outputs(model, images))
    return graph


def chain(*layers):
    def compute(x):
        for layer in layers:
            x = layer(x)
        return x

    return compute


def operations(graph):
    """The number of nodes of each operation, without placeholders and constants."""
    counts = collections.Counter(node.op for node in graph.definition.node)
    return {op: count for op, count in counts.items() if op not in ("Placeholder", "Const")}


def probabilities(model, images, info):
    """Probabilities of images in 0 to 255: Keras' own predict, the rest in NumPy."""
    normalized = (images.astype(np.float64) - info.mean) / info.std
    logits = model.predict(normalized.astype(np.float32), verbose=0).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def export(folder, model, info, *, freeze=False, max_image_pixels=5_000_000):
    """Writes a rewritten SavedModel, as export.py does."""
    graph = rewriting.rewrite(network.trace(model, info.image_shape))[-1].graph
    saved_model.write(
        graph, info.preprocessing, folder, freeze=freeze, max_image_pixels=max_image_pixels
    )
    return folder


class PlainSession:
    """A model loaded as servers do, without Keras and our Python."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        self.loaded = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))

    def __call__(self, signature, value):
        definition = self.loaded.signature_def[signature]
        [given] = definition.inputs.values()
        outputs = {name: info.name for name, info in definition.outputs.items()}
        return self.session.run(outputs, {given.name: value})
