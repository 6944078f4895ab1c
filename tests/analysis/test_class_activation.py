"""Grad-CAM: its closed form, and maps of images that have their object in one quadrant."""

import keras
import numpy as np
import pytest

import keras_preact
from keras_preact import ResNetV2, analysis
from keras_preact.layers import ORDERS, Preprocessing

SIDE = 16


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)


def _net(unit="full_preactivation", **options):
    keras.utils.set_random_seed(0)
    return ResNetV2(8, input_shape=(SIDE, SIDE, 3), classes=4, unit=unit, **options)


def _closed_form(model, images, tap, classes):
    """Class activation maps: the classifier's weights, on the map that is pooled."""
    features = keras.Model(model.input, model.get_layer(tap).output)(images, training=False)
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    _, height, width, _ = features.shape
    maps = np.einsum("bhwc,cb->bhw", np.asarray(features), kernel[:, classes])
    return np.maximum(maps, 0) / (height * width)


@pytest.mark.parametrize("unit", ORDERS)
def test_the_map_is_what_the_pooling_reads_weighted_as_the_classifier_does(unit, images):
    model = _net(unit)
    tap = {"full_preactivation": "head_relu", "relu_only_preactivation": "head_relu"}
    classes = np.array([2, 0, 3])
    expected = _closed_form(model, images, tap.get(unit, "stage3_unit1"), classes)
    found = keras_preact.grad_cam(model, images, classes, resize=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() > 1e-3


def test_bottlenecks_in_the_layout_of_keras_have_their_map_behind_the_head(images):
    keras.utils.set_random_seed(0)
    model = ResNetV2(11, input_shape=(SIDE, SIDE, 3), classes=4, layout="keras")
    expected = _closed_form(model, images, "head_relu", [1, 2, 3])
    found = analysis.grad_cam(model, images, np.array([1, 2, 3]), resize=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_output_of_the_last_addition_is_another_map(images):
    model = _net()
    found = analysis.grad_cam(model, images, np.array([2, 0, 3]), resize=False)
    raw = _closed_form(model, images, "stage3_unit1", [2, 0, 3])
    assert np.abs(found - raw).max() > 0.1 * found.max()


def test_without_classes_it_is_the_map_of_the_likeliest(images):
    model = _net()
    likeliest = np.argmax(model(images, training=False), axis=-1)
    np.testing.assert_array_equal(
        analysis.grad_cam(model, images), analysis.grad_cam(model, images, likeliest)
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_softmax_or_sigmoid_behind_changes_nothing(images, activation):
    model = _net()
    expected = analysis.grad_cam(model, images, np.array([1, 2, 3]))
    ends = _net(classifier_activation=activation)
    ends.set_weights(model.get_weights())
    logits = model.get_layer("logits")
    dense = keras.layers.Dense(4, activation=activation)
    joined = keras.Model(model.input, dense(model.get_layer("avg_pool").output))
    dense.set_weights(logits.get_weights())
    for each in (ends, joined):
        found = analysis.grad_cam(each, images, np.array([1, 2, 3]))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_maps_have_the_size_of_the_images_and_are_not_negative(images):
    model = _net()
    found = analysis.grad_cam(model, images)
    assert found.shape == (3, SIDE, SIDE) and found.dtype == np.float32 and found.min() >= 0
    assert analysis.grad_cam(model, images, resize=False).shape == (3, SIDE // 4, SIDE // 4)
    assert analysis.grad_cam(model, images[:0]).shape == (0, SIDE, SIDE)


def test_uint8_images_are_normalized_as_the_model_says():
    model, image = _net(), np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(1, SIDE, SIDE, 3)
    with pytest.raises(ValueError, match="carries none"):
        analysis.grad_cam(model, image)
    model.preprocessing = Preprocessing((SIDE, SIDE, 3), (100.0,) * 3, (50.0,) * 3)
    expected = analysis.grad_cam(model, (image - np.float32(100)) / 50)
    np.testing.assert_allclose(analysis.grad_cam(model, image), expected, atol=1e-6)


def test_many_images_are_taken_in_parts():
    model = _net()
    many = np.random.default_rng(1).normal(size=(19, SIDE, SIDE, 3)).astype(np.float32)
    found, last = analysis.grad_cam(model, many), analysis.grad_cam(model, many[-1:])
    np.testing.assert_allclose(found[-1:], last, atol=1e-6)


def test_a_net_of_keras_that_pools_keeping_its_axes_has_its_map_before_the_pooling(images):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(5, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Conv2D(4, 1),
            layers.Flatten(),
        ]
    )
    assert analysis.grad_cam(model, images, resize=False).shape == (3, 7, 7)


def test_a_net_within_a_net_and_layers_of_several_nets_have_their_own_maps(images):
    model = _net()
    expected = analysis.grad_cam(model, images)
    body = keras.Model(model.input, model.get_layer("head_relu").output)
    top = [keras.layers.GlobalAveragePooling2D(), model.get_layer("logits")]
    around = keras.Sequential([keras.Input((SIDE, SIDE, 3)), body, *top])
    np.testing.assert_allclose(analysis.grad_cam(around, images), expected, atol=1e-6)
    large = keras.models.clone_model(
        model, input_tensors=keras.Input((24, 24, 3)), clone_function=lambda layer: layer
    )
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    assert analysis.grad_cam(large, padded, resize=False).shape == (3, 6, 6)
    np.testing.assert_allclose(analysis.grad_cam(model, images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "classes", "words"),
    [
        ([keras.layers.Flatten(), keras.layers.Dense(4)], None, "a map"),
        ([keras.layers.Conv2D(4, 3)], None, "one number"),
        ([keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()], [0, 1], "3 images"),
        ([keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()], [0, 1, 4], "0 to 3"),
        ([keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()], [0, 1.5, 2], "whole"),
    ],
    ids=["flat", "no pooling", "too few", "no such class", "fractions"],
)
def test_what_does_not_fit_is_refused(layers, classes, words, images):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    with pytest.raises(ValueError, match=words):
        analysis.grad_cam(model, images, classes)


def _images_with_an_object(count, seed):
    """Noise with a square in a random quadrant, whose colour is the class; and the quadrants."""
    generator = np.random.default_rng(seed)
    images = generator.normal(scale=0.3, size=(count, 32, 32, 3)).astype(np.float32)
    labels, quadrants = generator.integers(3, size=count), generator.integers(4, size=count)
    for image, label, quadrant in zip(images, labels, quadrants, strict=True):
        top, left = 16 * (quadrant // 2) + 4, 16 * (quadrant % 2) + 4
        image[top : top + 8, left : left + 8, label] += 2
    return images, labels, quadrants


def _shares(model, seed):
    """The part of each map's mass that lies in the quadrant of the object."""
    images, labels, quadrants = _images_with_an_object(64, seed)
    maps = analysis.grad_cam(model, images, labels)
    parts = maps.reshape(64, 2, 16, 2, 16).sum(axis=(2, 4)).reshape(64, 4)
    return parts[np.arange(64), quadrants] / parts.sum(axis=1)


def test_the_mass_of_the_map_lies_where_the_object_is():
    # Only the classifier has learned, on random features.
    model = ResNetV2(8, input_shape=(32, 32, 3), classes=3, width_multiplier=0.5)
    images, labels, _ = _images_with_an_object(256, seed=0)
    features = keras.Model(model.input, model.get_layer("avg_pool").output)
    pooled = np.asarray(features(images, training=False))
    centred = pooled - pooled.mean(axis=0)
    targets = np.eye(3)[labels] - 1 / 3
    ridge = 1e-4 * np.eye(pooled.shape[1]) * np.var(pooled) * len(pooled)
    kernel = np.linalg.solve(centred.T @ centred + ridge, centred.T @ targets)
    model.get_layer("logits").set_weights([kernel, -pooled.mean(axis=0) @ kernel])
    assert np.mean(_shares(model, seed=1)) > 0.5  # a quarter would be chance


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["full_preactivation", "original"])
def test_the_map_of_a_trained_net_lies_where_the_object_is(unit):
    keras.utils.set_random_seed(0)
    model = ResNetV2(8, input_shape=(32, 32, 3), classes=3, unit=unit, width_multiplier=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    images, labels, _ = _images_with_an_object(256, seed=0)
    model.fit(images, labels, batch_size=32, epochs=4, verbose=0)
    shares = _shares(model, seed=1)
    assert np.mean(shares) > 0.7 and np.mean(shares > 0.25) > 0.95
