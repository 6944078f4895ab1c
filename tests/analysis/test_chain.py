"""Networks taken apart into residual units, and measured without being changed."""

import functools
import json

import keras
import numpy as np
import pytest
from resnext import ResNeXtUnit, of_keras
from tiny_chains import chain_of_units, sample, three_stages

from keras_preact import analysis
from keras_preact.analysis import backward_pass, chain
from keras_preact.layers import Conv2D, Dropout, ResidualUnit, Taps
from keras_preact.models import ResNetV2

SHAPE = (6, 6, 4)


def output_of(network, images, training=False):
    return network.compute(chain.call, network.tail, network.inputs(images, training)[-1], training)


def test_units_come_in_order_with_their_stages():
    network = chain.take_apart(three_stages(units=2))
    assert network.names == tuple(f"stage{s}_unit{u}" for s in (1, 2, 3) for u in (1, 2))
    np.testing.assert_array_equal(network.stages, [1, 1, 2, 2, 3, 3])
    network = chain.take_apart(chain_of_units(3))
    np.testing.assert_array_equal(network.stages, [1, 1, 1])


@pytest.mark.parametrize("training", [False, True])
def test_a_network_in_parts_computes_what_it_computes_whole(training):
    model = three_stages(unit="original", units=2)
    images = sample()[0]
    found = output_of(chain.take_apart(model), images, training)
    np.testing.assert_allclose(found, model(images, training=training), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_a_backbone_within_a_network_is_taken_apart_too(kind):
    backbone = three_stages(units=2, include_top=False, pooling="avg")
    first, last = keras.layers.Rescaling(1 / 255), keras.layers.Dense(3, name="logits")
    inputs = keras.Input((8, 8, 3))
    if kind == "sequential":
        model = keras.Sequential([inputs, first, backbone, last])
    else:
        model = keras.Model(inputs, last(backbone(first(inputs))))
    images, labels = sample()
    images *= 255
    network = chain.take_apart(model)
    assert network.names == chain.take_apart(backbone).names
    np.testing.assert_allclose(output_of(network, images), model(images), rtol=1e-5, atol=1e-6)

    # The same units by themselves, with the same head.
    whole = three_stages(units=2)
    whole.set_weights([*backbone.get_weights(), *last.get_weights()])
    ours, expected = (
        analysis.backward(m, x, labels) for m, x in ((model, images), (whole, images / 255))
    )
    np.testing.assert_allclose(ours.gradient_norm, expected.gradient_norm, rtol=1e-4)


def test_what_lies_between_two_units_belongs_to_all_paths():
    x = inputs = keras.Input((8, 8, 4))
    x = ResidualUnit(4, name="before")(x)
    x = keras.layers.AveragePooling2D(2)(Conv2D(4, 3)(x))
    x = ResidualUnit(4, name="after")(x)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    images, labels = sample((8, 8, 4))
    network = chain.take_apart(model)
    assert [len(gap) for gap in network.gaps] == [0, 1]
    np.testing.assert_array_equal(network.stages, [1, 2])
    np.testing.assert_allclose(output_of(network, images), model(images), rtol=1e-5, atol=1e-6)
    measured = analysis.backward(model, images, labels)
    np.testing.assert_array_less(measured.split_error, 1e-6)
    # 4 x 4 pixels enter the second unit: pooling and convolution change the norm.
    ratio = measured.shortcut_norm / measured.output_gradient_norm
    np.testing.assert_allclose(ratio[1], 1, rtol=1e-5)
    assert abs(ratio[0] - 1) > 0.1


class TwoPaths(keras.layers.Layer):
    """A custom unit: 0.5 x + conv(x), without an argument for training."""

    def __init__(self, filters, strides=1, first_in_network=False, **kwargs):
        super().__init__(**kwargs)
        self.conv = Conv2D(filters, 3, strides)
        self.match = Conv2D(filters, 1, strides)

    def build(self, shape):
        self.conv.build(shape)
        self.match.build(shape)

    def call(self, x, return_taps=False):
        matched, residual = self.match(x), self.conv(x)
        y = 0.5 * matched + residual
        return Taps(matched, 0.5 * matched, residual, y, y) if return_taps else y

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


def test_a_factory_of_other_layers_makes_units_that_are_measured():
    model = ResNetV2(8, unit=TwoPaths, width_multiplier=0.25, input_shape=(8, 8, 3))
    images, labels = sample()
    backward = analysis.backward(model, images, labels)
    np.testing.assert_array_less(backward.split_error, 1e-6)
    np.testing.assert_allclose(backward.shortcut_factor, 0.5, rtol=1e-6)
    forward = analysis.forward(model, images)
    unit = model.get_layer("stage1_unit1")
    features = keras.Model(model.inputs[0], unit.input)(images)
    np.testing.assert_allclose(forward.residual.variance[0], np.var(unit.conv(features)), rtol=1e-4)


@pytest.mark.parametrize("conv", [Conv2D, of_keras])
def test_units_with_grouped_convolutions_are_measured(conv):
    unit = functools.partial(ResNeXtUnit, conv=conv)
    model = ResNetV2(8, unit=unit, width_multiplier=0.5, input_shape=(8, 8, 3))
    images, labels = sample()
    backward = analysis.backward(model, images, labels)
    np.testing.assert_array_less(backward.split_error, 1e-5)
    last = model.get_layer("stage3_unit1")
    features = keras.Model(model.inputs[0], last.input)(images)
    taps = last(features, return_taps=True)
    forward = analysis.forward(model, images, training=False)
    np.testing.assert_allclose(forward.residual.variance[-1], np.var(taps.residual), rtol=1e-4)


def not_a_chain():
    x = inputs = keras.Input(SHAPE)
    x = ResidualUnit(4, name="first")(x)
    x = ResidualUnit(4, name="second")(x) + x
    return keras.Model(inputs, keras.layers.Flatten()(ResidualUnit(4, name="third")(x)))


def two_inputs():
    a, b = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model([a, b], keras.layers.Flatten()(ResidualUnit(4)(a + b)))


def no_units():
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()], name="flat")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_units, "model must have residual units: .*Received: flat, without any"),
        (not_a_chain, "must be called one after the other.*Received: a model in which third"),
        (two_inputs, "model must have one input and one output. Received: 2 and 1"),
    ],
)
@pytest.mark.parametrize("measure", [analysis.forward, analysis.backward])
def test_what_is_no_chain_of_units_is_refused(make, message, measure):
    arguments = sample(SHAPE)[: 1 if measure is analysis.forward else 2]
    with pytest.raises(ValueError, match=message):
        measure(make(), *arguments)


def state(model):
    return [np.array(variable) for variable in model.variables]


def as_arrays(result):
    fields = vars(result).values()
    return [np.asarray(v) for v in fields if isinstance(v, float | np.ndarray)]


def random_network():
    """Units whose shortcuts and residuals draw random numbers, three of one kind."""
    return chain_of_units(4, SHAPE, shortcut=Dropout(0.5), stochastic_depth_rate=0.3)


def test_measuring_leaves_the_network_as_it_is():
    model = random_network()
    images, labels = sample(SHAPE)
    before, config = state(model), json.dumps(model.get_config(), default=str)
    for training in (True, False):
        analysis.forward(model, images, training=training)
        analysis.backward(model, images, labels, training=training)
    for found, expected in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert json.dumps(model.get_config(), default=str) == config
    # There are random states, and a step of training changes them.
    model(images, training=True)
    changed = [
        v.path for v, old in zip(model.variables, before, strict=True) if not np.array_equal(v, old)
    ]
    assert any("seed" in path for path in changed) and any("moving" in path for path in changed)


def test_two_measurements_draw_the_same_random_numbers():
    model = random_network()
    images, labels = sample(SHAPE)
    for measure in (
        lambda: analysis.forward(model, images),
        lambda: analysis.backward(model, images, labels),
    ):
        for first, second in zip(as_arrays(measure()), as_arrays(measure()), strict=True):
            np.testing.assert_array_equal(first, second)


class EagerChain(chain.Chain):
    """Traces nothing."""

    def compute(self, function, layers, *arguments):
        with keras.StatelessScope():
            return function(layers, *arguments)


def test_a_traced_computation_returns_what_an_eager_one_does():
    model = random_network()
    images, labels = sample(SHAPE)
    network = chain.take_apart(model)
    runs = [as_arrays(backward_pass.of_chain(network, images, labels)) for _ in range(4)]
    assert network._traced

    eager = EagerChain(network.gaps, network.units, network.tail, network.has_softmax)
    expected = as_arrays(backward_pass.of_chain(eager, images, labels))
    for run in runs:
        for found, wanted in zip(run[:7], expected[:7], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_traced_computation_takes_the_weights_of_its_own_unit():
    # Four units of one signature: traced once, for the third.
    model = chain_of_units(4, SHAPE, top=False)
    for number, unit in enumerate(model.layers[1:], 1):
        unit.trainable_variables[-1].assign(unit.trainable_variables[-1] * number)
    images = sample(SHAPE)[0]
    measured = analysis.forward(model, images)
    outputs = keras.Model(model.inputs[0], [unit.output for unit in model.layers[1:]])
    expected = [np.var(y) for y in outputs(images, training=True)]
    np.testing.assert_allclose(measured.output.variance, expected, rtol=1e-4)


def test_weights_that_change_between_two_measurements_of_a_chain_count():
    model = chain_of_units(4, SHAPE)
    images, labels = sample(SHAPE)
    network = chain.take_apart(model)
    for _ in range(3):
        backward_pass.of_chain(network, images, labels)
    model.set_weights([0.9 * weight for weight in model.get_weights()])
    found = backward_pass.of_chain(network, images, labels)
    expected = analysis.backward(model, images, labels)
    np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=1e-4)


@pytest.mark.parametrize("place", ["last layer", "backbone", "layer of its own"])
def test_probabilities_have_one_loss_however_often_they_are_measured(place):
    activation = None if place == "layer of its own" else "softmax"
    model = ResNetV2(
        8, width_multiplier=0.25, input_shape=(8, 8, 3), classifier_activation=activation
    )
    if place != "last layer":
        after = [keras.layers.Softmax()] if activation is None else []
        model = keras.Sequential([keras.Input((8, 8, 3)), model, *after])
    images, labels = sample()
    chosen = np.asarray(model(images, training=True))[np.arange(4), labels]
    network = chain.take_apart(model)
    losses = [backward_pass.of_chain(network, images, labels).loss for _ in range(4)]
    np.testing.assert_allclose(losses, -np.log(chosen).mean(), rtol=1e-4)
