"""Ranges of activations, beside those of Keras' layers and of TensorFlow's calibration."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from residual_files import exact_file, make_images, make_model, save, streams

from keras_preact.exporting.formats import ranges, tflite
from keras_preact.exporting.formats.additions import find


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    return exact_file(tmp_path_factory.mktemp("exact") / "saved_model", model)


def test_activations_of_float32_are_those_of_keras(model, exact):
    images = make_images(3)
    expected = streams(model, images)
    activations = ranges.Activations(exact, {each.stream for each in find(exact)})
    for number, image in enumerate(images):
        got = dict(activations(image))
        assert len(got) == len(expected) == 3
        for each in find(exact):
            keras = expected[each.unit][number : number + 1]
            np.testing.assert_allclose(got[each.stream], keras, atol=1e-4)


def test_observed_ranges_reach_from_the_least_to_the_largest_value(model, exact):
    images = make_images(5)
    expected, observed = streams(model, images), ranges.observed(exact, images)
    for each in find(exact):
        keras = expected[each.unit]
        limits = keras.min(), keras.max()
        np.testing.assert_allclose(observed[each.stream], limits, atol=1e-4)


def test_quantizing_with_observed_ranges_is_quantizing_as_tensorflow_calibrates(
    model, exact, tmp_path
):
    images = make_images(20)
    # The calibration gives the first image a black and a white pixel.
    images[0].flat[:2] = 0, 255
    own = ranges.quantize(exact, ranges.observed(exact, images))
    official = tflite.convert(save(tmp_path / "saved_model", model), "int8", images)
    scales = [scales_of(file) for file in (own, official)]
    assert scales[0].keys() == scales[1].keys() and len(scales[0]) > 20
    quotients = {name: scales[1][name] / scale for name, scale in scales[0].items()}
    # TensorFlow reads some tensors after an addition in place: their ranges are wider.
    assert all((quotient > 0.999).all() for quotient in quotients.values())
    wider = [name.decode() for name, quotient in quotients.items() if (quotient > 1.001).any()]
    around_additions = {name for each in find(exact) for name in (each.stream, each.residual)}
    assert all(name in around_additions or "projection" in name for name in wider)


def scales_of(file):
    [graph] = schema.ModelT.InitFromPackedBuf(file).subgraphs
    pairs = [(each.name, each.quantization and each.quantization.scale) for each in graph.tensors]
    return {name: scale for name, scale in pairs if scale is not None}


class Brightest(tf.Module):
    """A file whose activation is the image itself, above 1."""

    @tf.function(input_signature=[tf.TensorSpec([None, 64, 64, 3], tf.float32, name="images")])
    def __call__(self, images):
        bright = tf.nn.relu(images - 1.0)
        return {"probabilities": tf.nn.softmax(tf.reduce_mean(bright * 0.1, [1, 2]))}


@pytest.fixture(scope="module")
def brightest(tmp_path_factory):
    module, folder = Brightest(), tmp_path_factory.mktemp("brightest")
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.__call__})
    return tflite.convert(folder, "float32")


def test_a_value_far_from_all_others_is_cut_off(brightest):
    images = np.random.default_rng(0).integers(0, 21, (32, 64, 64, 3), np.uint8)
    plain = ranges.observed(brightest, images)
    images[0, 0, 0, 0] = 41
    observed = ranges.observed(brightest, images)
    narrowed = ranges.least_error(brightest, images, observed)
    assert {high for _, high in observed.values()} >= {40.0}
    [name] = [name for name, limits in observed.items() if limits == (0.0, 40.0)]
    assert plain[name][1] == 19 <= narrowed[name][1] < 25
    assert narrowed.keys() == observed.keys()


def test_where_no_value_is_far_from_all_others_ranges_stay(brightest):
    images = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), np.uint8)
    observed = ranges.observed(brightest, images)
    narrowed = ranges.least_error(brightest, images, observed)
    [name] = [name for name, limits in observed.items() if limits == (0.0, 254.0)]
    assert narrowed[name] == observed[name]
