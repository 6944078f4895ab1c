"""Networks whose images skip residuals in training, deeper units more often."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact import PlainNet, ResNet, ResNetV2
from keras_preact.layers import NoShortcut, ResidualUnit

SMALL = {"depth": 14, "input_shape": (8, 8, 3)}


def images():
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


def rates(model):
    units = [layer for layer in model.layers if isinstance(layer, ResidualUnit)]
    return [unit.stochastic_depth_rate for unit in units]


@pytest.mark.parametrize("builder", [ResNet, ResNetV2])
def test_the_rate_of_a_unit_grows_linearly_with_its_depth(builder):
    # Six units: the survival probability of unit l is 1 - l / 6 * (1 - 0.7).
    model = builder(**SMALL, stochastic_depth_rate=0.3)
    np.testing.assert_allclose(rates(model), [0.05, 0.1, 0.15, 0.2, 0.25, 0.3], rtol=1e-12)
    assert rates(model)[-1] == 0.3


def test_the_published_net_of_110_layers_keeps_three_quarters_of_its_units():
    # Section 3: with p_L = 0.5 and 54 units, 40 are expected in a step.
    expected = sum(1 - rate for rate in rates(ResNet(110, stochastic_depth_rate=0.5)))
    assert expected == pytest.approx((3 * 54 - 1) / 4) == pytest.approx(40.25)


def test_without_it_no_unit_has_a_rate_or_a_random_state():
    model = ResNetV2(**SMALL)
    assert rates(model) == [0.0] * 6
    assert not [v.path for v in model.variables if "seed" in v.path]


def test_names_and_weights_are_those_of_a_net_without_it_and_so_is_inference(tmp_path):
    model, plain = ResNetV2(**SMALL, stochastic_depth_rate=0.5), ResNetV2(**SMALL)
    assert [v.path for v in model.weights] == [v.path for v in plain.weights]
    assert model.count_params() == plain.count_params()
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    # A step first, so that moving statistics differ from the initial ones.
    model(images(), training=True)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    for weights_at_once in (True, False):
        other = ResNetV2(**SMALL)
        if weights_at_once:
            other.set_weights(model.get_weights())
        else:
            other.load_weights(path)
        np.testing.assert_array_equal(other(images()), model(images()))


def test_random_states_are_named_after_their_units():
    model = ResNetV2(8, stochastic_depth_rate=0.5)
    states = [v.path for v in model.variables if "seed" in v.path]
    units = [f"stage{stage}_unit1" for stage in (1, 2, 3)]
    assert states == [f"{unit}/stochastic_depth/seed/seed_generator_state" for unit in units]


def test_a_saved_network_comes_back_with_its_rates(tmp_path):
    model = ResNetV2(**SMALL, stochastic_depth_rate=0.5)
    model(images(), training=True)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert rates(loaded) == rates(model)
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    np.testing.assert_array_equal(loaded(images()), model(images()))
    assert not np.array_equal(loaded(images(), training=True), loaded(images(), training=True))


def test_the_same_seed_drops_the_same_residuals():
    outputs = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = ResNetV2(**SMALL, stochastic_depth_rate=0.5)
        model.set_weights([np.full_like(w, 0.01) for w in model.get_weights()])
        outputs.append(tf.function(model)(images(), training=True).numpy())
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_step_reaches_every_weight(policy):
    keras.config.set_dtype_policy(policy)
    model = ResNetV2(8, input_shape=(8, 8, 3), stochastic_depth_rate=0.5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images(), training=True) ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    message = rf"rate must be at least 0 and below 1\. Received: stochastic_depth_rate={rate}"
    with pytest.raises(ValueError, match=message):
        ResNetV2(**SMALL, stochastic_depth_rate=rate)


@pytest.mark.parametrize(
    "build",
    [
        PlainNet,
        functools.partial(ResNetV2, shortcut="none"),
        functools.partial(ResNetV2, shortcut=NoShortcut()),
    ],
)
def test_a_plain_net_cannot_drop_residuals(build):
    with pytest.raises(ValueError, match=r"must be 0 with shortcut='none'.*_rate=0\.5"):
        build(**SMALL, stochastic_depth_rate=0.5)
    build(**SMALL, stochastic_depth_rate=0.0)


def test_a_factory_decides_on_stochastic_depth_itself():
    with pytest.raises(ValueError, match=r"factory decides on its .* stochastic_depth_rate=0\.5"):
        ResNetV2(**SMALL, unit=ResidualUnit, stochastic_depth_rate=0.5)
    factory = functools.partial(ResidualUnit, projection="zero_pad", stochastic_depth_rate=0.2)
    assert rates(ResNetV2(**SMALL, unit=factory)) == [0.2] * 6
