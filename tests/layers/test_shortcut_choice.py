"""How a unit gets its shortcut: by name, from a template, from a saved configuration."""

import keras
import numpy as np
import pytest

from keras_preact.layers import (
    SHORTCUTS,
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    ResidualUnit,
    Shortcut,
    ShortcutOnlyGating,
    shortcuts,
)

TEMPLATES = [
    Identity(),
    NoShortcut(),
    ConstantScaling(0.25, 2.0),
    ExclusiveGating(-3.0),
    ShortcutOnlyGating(-3.0),
    Convolution(batch_norm=True),
    Dropout(0.25, rescale=True),
]


def images():
    return np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")


def own_config(shortcut):
    """Its configuration, less what its unit gives it."""
    of_unit = ("name", "dtype", "strides")
    return {k: v for k, v in shortcut.get_config().items() if k not in of_unit}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: type(template).__name__)
def test_a_template_and_its_saved_configuration_are_copied_with_their_arguments(template):
    saved = keras.saving.serialize_keras_object(template)
    for copy in (shortcuts.get(template), shortcuts.get(saved)):
        assert copy is not template
        assert type(copy) is type(template)
        assert own_config(copy) == own_config(template)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: type(template).__name__)
def test_the_shortcut_of_a_unit_can_be_saved_and_made_again(template):
    shortcut = ResidualUnit(4, shortcut=template).shortcut
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(shortcut))
    assert type(copy) is type(template)
    assert (copy.name, own_config(copy)) == ("shortcut", own_config(template))


def test_units_that_share_a_template_own_their_variables():
    template = ExclusiveGating(-3.0)
    units = [ResidualUnit(4, shortcut=template) for _ in range(2)]
    for unit in units:
        unit.build((None, 5, 6, 4))
    first, second = (unit.shortcut.gate_conv.bias for unit in units)
    first.assign(np.ones(4))
    np.testing.assert_array_equal(second, np.full(4, -3.0))
    assert not template.built


def test_a_name_gives_the_paper_s_shortcut_and_arguments_replace_its_defaults():
    assert {name: type(shortcuts.get(name)) for name in SHORTCUTS} == SHORTCUTS
    assert shortcuts.get("exclusive_gating").initial_bias == -6.0
    assert shortcuts.get("dropout", rate=0.1).rate == 0.1
    assert shortcuts.get(Dropout(0.25, rescale=True), rate=0.1).rescale is True


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="Did you mean 'shortcut_only_gating'"):
        shortcuts.get("shortcut_gating")


def test_an_unknown_argument_is_refused_with_those_that_exist():
    message = r"ConstantScaling takes shortcut_scale and residual_scale\. Received: scale"
    with pytest.raises(ValueError, match=message):
        shortcuts.get("constant_scaling", scale=2)
    with pytest.raises(ValueError, match=r"Identity takes no arguments\. Received: rate, seed"):
        shortcuts.get("identity", rate=0.1, seed=1)


@pytest.mark.parametrize("identifier", [None, 3, keras.layers.Add()])
def test_what_is_no_shortcut_is_refused(identifier):
    with pytest.raises(TypeError, match=r"must be one of identity, .* Received: "):
        shortcuts.get(identifier)


def test_the_base_class_asks_for_the_sum():
    with pytest.raises(NotImplementedError, match=r"must define call\(x, residual\)"):
        Shortcut()(images(), images())


class Weighted(Shortcut):
    """w * x + F with one trained weight a channel, as a user might write it."""

    def build(self, x_shape, residual_shape):
        self.w = self.add_weight(name="w", shape=(x_shape[-1],), initializer="ones")

    def call(self, x, residual):
        return self.w * x + residual


def test_a_shortcut_of_your_own_works_in_a_unit():
    x = images()
    template = Weighted()
    ours, plain = ResidualUnit(4, shortcut=template), ResidualUnit(4, shortcut="identity")
    ours(x)
    plain.build(x.shape)
    weights = {v.path.partition("/")[2]: v for v in ours.variables}
    for variable in plain.variables:
        variable.assign(weights[variable.path.partition("/")[2]])
    weights["shortcut/w"].assign([2.0, 0.0, 1.0, -1.0])
    difference = np.array([1.0, -1.0, 0.0, -2.0]) * x
    np.testing.assert_allclose(ours(x) - plain(x), difference, atol=1e-5)


class Pooling(Shortcut):
    """Skips pixels and channels by itself, as a user might write it."""

    matches_dimensions = True

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, x, residual):
        return self.scale * x[:, :: self.strides, :: self.strides, :2] + residual


@pytest.mark.parametrize("strides", [1, 2])
def test_a_shortcut_of_your_own_that_changes_dimensions_is_given_the_strides(strides):
    template = Pooling(3.0)
    unit = ResidualUnit(2, strides, shortcut=template)
    assert (unit.shortcut.strides, template.strides) == (strides, 1)
    assert unit.shortcut.scale == 3.0
    unit(images())
    assert unit.match == []
    config = keras.saving.serialize_keras_object(unit)
    with keras.saving.custom_object_scope({"Pooling": Pooling}):
        copy = keras.saving.deserialize_keras_object(config)
    assert (copy.shortcut.strides, copy.shortcut.scale) == (strides, 3.0)


class Strict(Shortcut):
    """Takes the arguments of any layer and no others."""

    def __init__(self, name=None, dtype=None, trainable=True):
        super().__init__(name=name, dtype=dtype, trainable=trainable)

    def call(self, x, residual):
        return x + residual


def test_a_shortcut_that_leaves_dimensions_to_the_projection_is_given_no_strides():
    unit = ResidualUnit(8, 2, shortcut=Strict())
    assert unit(images()).shape == (2, 3, 3, 8)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_saved_unit_has_its_strides_once(shortcut):
    config = ResidualUnit(8, 2, shortcut=shortcut).get_config()
    assert config["strides"] == 2
    assert "strides" not in config["shortcut"]["config"]
