"""Lesions against networks that are built anew, without a unit or with two swapped."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy_units import CLASSES, Toy, chain_of, small_network

from keras_preact.analysis.lesions import lesion
from keras_preact.layers import ResidualUnit
from keras_preact.models import PlainNet

IMAGES = np.random.default_rng(0).normal(size=(60, 8, 8, 3)).astype("float32")


def predictions(call, images=IMAGES):
    return np.argmax(call(images), axis=-1)


def labels_for(model, images=IMAGES):
    """Labels, about three quarters of them as the network predicts."""
    labels = predictions(model, images)
    labels[::4] = np.arange(len(labels[::4])) % CLASSES
    return labels


def lesions(model, images=IMAGES, **options):
    batch = images, labels_for(model, images), np.ones(len(images))
    return lesion(model, [batch], **options)


def accuracy(model, layers, images=IMAGES):
    """The accuracy of layers or functions called one after the other."""
    x = images
    for layer in layers:
        x = layer(x)
    return np.mean(np.argmax(x, axis=-1) == labels_for(model, images))


def in_place_of(model, unit, function):
    return [function if layer is unit else layer for layer in model.layers[1:]]


def units_of(model):
    return [layer for layer in model.layers if isinstance(layer, ResidualUnit | Toy)]


def value(unit, name):
    (found,) = [v.numpy() for v in unit.variables if v.path.endswith(f"{unit.name}/{name}")]
    return found


def convolve(x, unit, name):
    return tf.nn.conv2d(x, value(unit, f"{name}/kernel"), unit.strides, "SAME")


def normalize(x, unit, name):
    gamma, beta, mean, variance = (
        value(unit, f"{name}/{of}") for of in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def one_minus_gate(x, unit):
    bias = value(unit, "shortcut/gate_conv/bias")
    return 1 - tf.sigmoid(convolve(x, unit, "shortcut/gate_conv") + bias)


SHORTCUT_ALONE = {
    "identity": ({}, lambda x, unit: x),
    "gate": ({"shortcut": "exclusive_gating"}, lambda x, unit: one_minus_gate(x, unit) * x),
    "relu_of_a_convolution": (
        {"unit": "original", "shortcut": "convolution"},
        lambda x, unit: tf.nn.relu(convolve(x, unit, "shortcut/conv")),
    ),
    "bn_and_relu": (
        {"unit": "bn_after_addition"},
        lambda x, unit: tf.nn.relu(normalize(x, unit, "addition_bn")),
    ),
}


@pytest.mark.parametrize("case", SHORTCUT_ALONE)
def test_a_deleted_unit_leaves_f_of_its_shortcut(case):
    options, alone = SHORTCUT_ALONE[case]
    model = small_network(**options)
    found = lesions(model, swaps=False)
    assert found.accuracy == accuracy(model, [model]) and found.images == 60
    assert found.units == tuple(unit.name for unit in units_of(model))
    # The second unit of each stage; the first ones start from the pre-activated input.
    expected = []
    for unit in units_of(model)[1::2]:
        changed = in_place_of(model, unit, lambda x, unit=unit: alone(x, unit))
        expected.append(accuracy(model, changed))
    np.testing.assert_array_equal(found.deleted_accuracy[1::2], expected)
    assert len({found.accuracy, *expected}) > 2


def zero_pad(x, unit):
    subsampled = x[:, ::2, ::2]
    missing = unit.plan.output_channels - x.shape[-1]
    return tf.pad(subsampled, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])


@pytest.mark.parametrize("projection", ["zero_pad", "convolution"])
def test_a_deleted_unit_that_changes_dimensions_leaves_its_projection(projection):
    model = small_network(projection=projection)
    found = lesions(model, swaps=False)
    expected = []
    for unit in units_of(model)[2::2]:

        def alone(x, unit=unit):
            x = tf.nn.relu(normalize(x, unit, "preact_bn"))
            return (
                zero_pad(x, unit)
                if projection == "zero_pad"
                else convolve(x, unit, "projection_conv")
            )

        expected.append(accuracy(model, in_place_of(model, unit, alone)))
    np.testing.assert_array_equal(found.deleted_accuracy[2::2], expected)


def test_a_plain_unit_is_left_out_unless_it_changes_dimensions():
    model = PlainNet(14, width_multiplier=0.5, input_shape=(8, 8, 3), classes=CLASSES)
    found = lesions(model)
    expected = np.full(6, np.nan)
    for number in (0, 1, 3, 5):
        unit = units_of(model)[number]
        expected[number] = accuracy(model, in_place_of(model, unit, lambda x: x))
    np.testing.assert_array_equal(found.deleted_accuracy, expected)
    assert len(set(expected[[0, 1, 3, 5]])) > 1


def test_swapped_units_are_called_in_the_other_order():
    model = small_network(units=3)
    found = lesions(model)
    expected = []
    for first, second in ((0, 1), (1, 2), (4, 5), (7, 8)):
        order = model.layers[1:]
        places = [order.index(units_of(model)[number]) for number in (first, second)]
        order[places[0]], order[places[1]] = order[places[1]], order[places[0]]
        expected.append(accuracy(model, order))
    np.testing.assert_array_equal(found.swapped, [(0, 1), (1, 2), (4, 5), (7, 8)])
    np.testing.assert_array_equal(found.swapped_accuracy, expected)
    assert len({found.accuracy, *expected}) > 2


def test_layers_between_units_stay_where_they_are():
    between = keras.layers.Conv2D(3, 3, padding="same", bias_initializer="random_normal")
    first, second = Toy(0.5, 1, relu=True, seed=2), Toy(1, 1, relu=True, seed=3)
    model = chain_of([first, between, second], (8, 8, 3))
    found = lesions(model)

    def with_head(*layers):
        return accuracy(model, [*layers, *model.layers[-2:]])

    assert found.swapped_accuracy == [with_head(second, between, first)]
    for elsewhere in ([second, first], [between, second, first], [second, first, between]):
        assert found.swapped_accuracy != with_head(*elsewhere)

    def alone(x):
        return np.maximum(0.5 * x, 0)

    assert found.deleted_accuracy[0] == with_head(alone, between, second)
    assert found.deleted_accuracy[0] != with_head(alone, second)


def test_stages_of_one_unit_have_no_swaps():
    found = lesions(small_network(units=1))
    assert found.swapped.shape == (0, 2) and found.swapped_accuracy.shape == (0,)
    assert found.deleted_accuracy.shape == (3,)


def test_swaps_can_be_left_out():
    model = small_network()
    found, without = lesions(model), lesions(model, swaps=False)
    assert found.swapped.tolist() == [[0, 1]] and without.swapped.shape == (0, 2)
    np.testing.assert_array_equal(without.deleted_accuracy, found.deleted_accuracy)


def test_a_layer_of_ones_own_leaves_what_its_taps_say():
    units = [Toy(-0.5, 1, relu=True, seed=1), Toy(1, 1, relu=True, seed=2), Toy(-1, 2, seed=3)]
    model = chain_of(units, (8, 8, 3))
    alone = [
        lambda x: np.maximum(-0.5 * x, 0),
        lambda x: np.maximum(x, 0),
        lambda x: -1 * x,
    ]
    expected = [
        accuracy(model, in_place_of(model, unit, function))
        for unit, function in zip(units, alone, strict=True)
    ]
    np.testing.assert_array_equal(lesions(model).deleted_accuracy, expected)


def test_without_shortcut_output_f_must_be_the_identity():
    told, untold = (chain_of([Toy(0.5, 1, seed=1, tells=tells)]) for tells in (True, False))
    untold.set_weights(told.get_weights())
    images = IMAGES[:, :4, :4]
    np.testing.assert_array_equal(
        lesions(untold, images).deleted_accuracy, lesions(told, images).deleted_accuracy
    )
    with pytest.raises(ValueError, match=r"must have shortcut_output.*Received: those of mine"):
        lesions(chain_of([Toy(0.5, 1, relu=True, tells=False, name="mine")]), images)


def test_filling_does_not_count_and_batches_add_up():
    model = small_network()
    labels, whole = labels_for(model), lesions(model)
    filled = np.concatenate([IMAGES[45:], IMAGES[:30]])
    filled_labels = np.concatenate([labels[45:], labels[:15], [-1] * 15])
    batches = [
        (IMAGES[:45], labels[:45], np.ones(45)),
        (filled, filled_labels, np.repeat([1, 0], [15, 30])),
    ]
    found = lesion(model, iter(batches))
    assert found.images == 60 and found.accuracy == whole.accuracy
    np.testing.assert_array_equal(found.deleted_accuracy, whole.deleted_accuracy)
    np.testing.assert_array_equal(found.swapped_accuracy, whole.swapped_accuracy)


def test_no_images_are_refused():
    model = chain_of([Toy(1, 1)])
    filling = IMAGES[:2, :4, :4], np.zeros(2, int), np.zeros(2)
    for batches in ([], [filling]):
        with pytest.raises(ValueError, match=r"at least one image.*Received: none"):
            lesion(model, batches)


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ([0, CLASSES], "from 0 to 5"),
        ([-1, 0], "from -1 to 0"),
        ([0], r"labels of shape \(1,\)"),
        ([0.0, 1.0], "type float64"),
    ],
)
def test_labels_that_are_not_classes_are_refused(labels, received):
    batch = IMAGES[:2, :4, :4], np.array(labels), np.ones(2)
    with pytest.raises(ValueError, match=f"whole number from 0 to 4 .*Received: .*{received}"):
        lesion(chain_of([Toy(1, 1)]), [batch])
