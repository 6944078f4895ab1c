"""A model with known answers and the signatures of an export, for tests.

Its classes follow from an image's mean colour.
"""

import numpy as np
import tensorflow as tf

NAMES = ("ant", "bee", "gnú", "cat", "dog", "eel", "fox")
IMAGE_SHAPE = (6, 5, 3)
TOP = 5
BROKEN = "No image file"
WEIGHTS = np.random.default_rng(3).normal(0, 0.005, (3, len(NAMES))).astype(np.float32)


def write(version):
    """Writes the model into the folder of a version of a SavedModel."""
    module = tf.Module()

    def predict(images):
        probabilities = tf.nn.softmax(tf.reduce_mean(tf.cast(images, tf.float32), (1, 2)) @ WEIGHTS)
        scores, labels = tf.math.top_k(probabilities, TOP)
        classes = tf.gather(tf.constant(NAMES), labels)
        return {"probabilities": probabilities, "classes": classes, "scores": scores}

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image = tf.image.resize(image, IMAGE_SHAPE[:2])
        return tf.ensure_shape(tf.cast(tf.round(image), tf.uint8), IMAGE_SHAPE)

    def decode_or_say(encoded):
        # The first bytes of a JPEG and of a PNG.
        good = tf.reduce_any(tf.strings.substr(encoded, 0, 2) == [b"\xff\xd8", b"\x89P"])
        image = tf.cond(good, lambda: decode(encoded), lambda: tf.zeros(IMAGE_SHAPE, tf.uint8))
        return image, tf.where(good, "", BROKEN)

    def predict_bytes(image_bytes):
        types = (tf.uint8, tf.string)
        images, errors = tf.map_fn(decode_or_say, image_bytes, fn_output_signature=types)
        return {**predict(images), "error": errors}

    def features(images):
        return {"features": tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))}

    def images(dtype):
        return tf.TensorSpec([None, *IMAGE_SHAPE], dtype, name="images")

    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    inputs = {
        "serving_default": (predict, images(tf.uint8)),
        "serving_float32": (predict, images(tf.float32)),
        "serving_bytes": (predict_bytes, image_bytes),
        "features": (features, images(tf.uint8)),
    }
    signatures = {
        name: tf.function(function).get_concrete_function(spec)
        for name, (function, spec) in inputs.items()
    }
    tf.saved_model.save(module, str(version), signatures)


def expected_answer(image):
    """Names and probabilities of an image (height, width, 3), likeliest first, in NumPy."""
    logits = image.astype(np.float64).mean((0, 1)) @ WEIGHTS
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)[:TOP]
    return [(NAMES[label], probabilities[label]) for label in order]


def flat_png(colour, shape=IMAGE_SHAPE):
    """An image file of one colour, and its pixels."""
    image = np.full(shape, colour, np.uint8)
    return tf.io.encode_png(image).numpy(), image
