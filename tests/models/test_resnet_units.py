"""Every unit with every shortcut in a network, and units of your own."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from variants import ORDERS, PYRAMID, SHORTCUTS

from keras_preact import ResNet, ResNetV2
from keras_preact.layers import ActivationOrder, ExclusiveGating, Identity, ResidualUnit, Shortcut

SMALL = {"depth": 8, "input_shape": (8, 8, 3)}


def images():
    return np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


def train_one_step(model):
    """One step of gradient descent. Returns the gradients by variable."""
    labels = tf.constant([0, 1, 2, 3])
    with tf.GradientTape() as tape:
        logits = model(images(), training=True)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.01 * gradient)
    paths = [v.path for v in model.trainable_variables]
    return dict(zip(paths, gradients, strict=True))


def assert_saves_and_loads(model, path):
    model.save(path)
    loaded = keras.models.load_model(path)
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    np.testing.assert_array_equal(loaded(images()), model(images()))


@pytest.mark.parametrize(("depth", "block"), [(5, "single"), (8, "basic"), (11, "bottleneck")])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("unit", ORDERS)
def test_every_network_trains_all_its_variables_and_survives_saving(
    unit, shortcut, depth, block, tmp_path
):
    model = ResNetV2(depth, block=block, unit=unit, shortcut=shortcut, input_shape=(8, 8, 3))
    before = model(images()).numpy()
    gradients = train_one_step(model)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        assert np.any(gradient), name
    assert not np.array_equal(model(images()), before)
    assert_saves_and_loads(model, tmp_path / "net.keras")


@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
def test_an_order_of_your_own_trains_and_survives_saving(block, tmp_path):
    depth = {"single": 5, "basic": 8, "bottleneck": 11}[block]
    model = ResNetV2(depth, block=block, unit=PYRAMID, input_shape=(8, 8, 3))
    names = [layer.name for layer in model.layers]
    # Its rows begin with BN alone: so does the head, and the stem ends with its convolution.
    assert names[1:3] == ["stem_conv", "stage1_unit1"]
    assert names[-4:] == ["stage3_unit1", "head_bn", "avg_pool", "logits"]
    assert all(np.isfinite(gradient).all() for gradient in train_one_step(model).values())
    assert_saves_and_loads(model, tmp_path / "net.keras")


def test_the_order_of_the_original_spelled_out_is_the_original():
    spelled = ActivationOrder("conv bn relu", "conv bn relu", "conv bn", after_addition="relu")
    named, own = ResNet(**SMALL), ResNetV2(**SMALL, unit=spelled)
    own.set_weights(named.get_weights())
    np.testing.assert_array_equal(own(images()), named(images()))


def test_the_first_unit_activates_before_its_paths_split():
    # The appendix: with the first residual switched off, x is still activated once.
    model = ResNetV2(**SMALL, include_top=False)
    units = [layer for layer in model.layers if isinstance(layer, ResidualUnit)]
    first = keras.Model(model.input, units[0].output)
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)
    (kernel,) = (v for v in units[0].variables if v.path.endswith("conv2/kernel"))
    kernel.assign(np.zeros(kernel.shape))
    # BN of a new network divides by sqrt(1 + epsilon) only.
    expected = np.maximum(stem(images()).numpy(), 0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(first(images()), expected, rtol=1e-5, atol=1e-6)


def test_a_template_of_a_shortcut_is_copied_into_every_unit():
    model = ResNetV2(**SMALL, shortcut=ExclusiveGating(initial_bias=-2.0))
    biases = [v for v in model.variables if v.path.endswith("gate_conv/bias")]
    assert len(biases) == 3
    for bias in biases:
        np.testing.assert_array_equal(bias, np.full(bias.shape, -2.0))


@keras.saving.register_keras_serializable(package="test_resnet_units")
class Difference(Shortcut):
    """F - x."""

    def call(self, x, residual):
        return residual - x


def test_a_shortcut_of_your_own_survives_saving(tmp_path):
    assert_saves_and_loads(ResNetV2(**SMALL, shortcut=Difference()), tmp_path / "net.keras")


def test_a_factory_of_residual_units_builds_the_network_of_its_arguments(tmp_path):
    factory = functools.partial(ResidualUnit, shortcut=ExclusiveGating(-3.0), projection="zero_pad")
    model = ResNetV2(**SMALL, unit=factory)
    named = ResNetV2(**SMALL, shortcut=ExclusiveGating(-3.0))
    named.set_weights(model.get_weights())
    assert [layer.name for layer in named.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(named(images()), model(images()))
    assert_saves_and_loads(model, tmp_path / "net.keras")


@keras.saving.register_keras_serializable(package="test_resnet_units")
class Subsampled(keras.layers.Layer):
    """A user's own unit: every strides-th pixel through one dense layer."""

    order = "original"

    def __init__(self, filters, strides, first_in_network, **kwargs):
        super().__init__(**kwargs)
        self.arguments = (filters, strides, first_in_network)

    def build(self, input_shape):
        filters, _, _ = self.arguments
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], filters))

    def call(self, x):
        _, strides, _ = self.arguments
        return x[:, ::strides, ::strides] @ self.kernel

    def get_config(self):
        names = ("filters", "strides", "first_in_network")
        return {**super().get_config(), **dict(zip(names, self.arguments, strict=True))}


def test_a_factory_may_return_any_layer_and_names_the_order_of_stem_and_head(tmp_path):
    model = ResNetV2(14, unit=Subsampled, input_shape=(8, 8, 3))
    units = [layer for layer in model.layers if isinstance(layer, Subsampled)]
    assert {unit.name: unit.arguments for unit in units} == {
        "stage1_unit1": (16, 1, True),
        "stage1_unit2": (16, 1, False),
        "stage2_unit1": (32, 2, False),
        "stage2_unit2": (32, 1, False),
        "stage3_unit1": (64, 2, False),
        "stage3_unit2": (64, 1, False),
    }
    # The original order ends the stem with BN and ReLU and has no head.
    names = [layer.name for layer in model.layers]
    assert names[1:4] == ["stem_conv", "stem_bn", "stem_relu"]
    assert names[-3:] == ["stage3_unit2", "avg_pool", "logits"]
    train_one_step(model)
    assert_saves_and_loads(model, tmp_path / "net.keras")


@pytest.mark.parametrize(
    "argument",
    [{"shortcut": "dropout"}, {"shortcut": Identity()}, {"projection": "zero_pad"}],
)
def test_a_factory_decides_on_shortcut_and_projection_itself(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"factory decides on its .* Received: .*{name}="):
        ResNetV2(**SMALL, unit=ResidualUnit, **argument)
