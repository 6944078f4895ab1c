"""Networks whose equal units share a traced function compute what they did before."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from variants import PYRAMID

from keras_preact.layers import Dropout, ResidualUnit
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.models import ResNetV2
from keras_preact.models.trace_sharing import share_traces

# Two units a stage; three with the bottlenecks of 29 layers.
VARIANTS = [
    {},
    {"unit": "original", "projection": "convolution"},
    {"unit": "bn_after_addition", "shortcut": "constant_scaling"},
    {"unit": PYRAMID, "block": "bottleneck", "depth": 29},
    {"shortcut": "exclusive_gating"},
    {"shortcut": "convolution", "unit": "relu_only_preactivation"},
    {"shortcut": "dropout"},
    {"stochastic_depth_rate": 0.4},
    {"shortcut": "none", "block": "single"},
]


def network(**options):
    """A small network with statistics and biases far from their initial values."""
    model = ResNetV2(**{"depth": 14, "input_shape": (8, 8, 3), **options})
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def images():
    return np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype("float32")


def computed(model, variables, training):
    """Logits, gradients and changed variables of a step; restores the variables afterwards."""
    before = [variable.numpy() for variable in variables]

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            logits = model(x, training=training)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        return logits, tape.gradient(loss, [v.value for v in model.trainable_variables])

    logits, gradients = step(images())
    after = [variable.numpy() for variable in model.non_trainable_variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return logits.numpy(), [np.array(g) for g in gradients], after


def assert_close(first, second, tolerance):
    """Equal in their norms: single numbers near 0 are mostly rounding."""
    assert first.dtype == second.dtype and first.shape == second.shape
    difference = np.linalg.norm(np.float64(first) - np.float64(second))
    assert difference <= tolerance * np.linalg.norm(np.float64(first))


def assert_computes_the_same(model, shared, training, tolerance):
    (logits, gradients, after), (logits2, gradients2, after2) = (
        computed(each, model.variables, training) for each in (model, shared)
    )
    assert_close(logits, logits2, tolerance)
    assert np.ptp(logits) > 0.1, "a network that says nothing proves nothing"
    for first, second in zip(gradients, gradients2, strict=True):
        assert_close(first, second, tolerance)
    for first, second in zip(after, after2, strict=True):
        assert_close(first, second, tolerance)
    return after


@pytest.mark.parametrize(
    ("options", "training"),
    [*((options, True) for options in VARIANTS), *((options, False) for options in VARIANTS[5:8])],
    ids=str,
)
def test_logits_gradients_and_updates_are_those_of_the_network(options, training):
    model = network(**options)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    after = assert_computes_the_same(model, share_traces(model), training, 1e-5)
    for old, new in zip(before, after, strict=True):
        # In training every statistic moves and every random layer goes on.
        assert np.array_equal(old, new) != training


def test_bn_keeps_its_statistics_in_the_units_that_say_so_alone():
    model = network()
    for number in (1, 2):
        for layer in bn_layers(model.get_layer(f"stage{number}_unit2")):
            layer.keeps_statistics = True
    before = [variable.numpy() for variable in model.non_trainable_variables]
    after = assert_computes_the_same(model, share_traces(model), True, 1e-5)
    for variable, old, new in zip(model.non_trainable_variables, before, after, strict=True):
        kept = variable.path.startswith(("stage1_unit2/", "stage2_unit2/"))
        assert np.array_equal(old, new) == kept, variable.path


@pytest.mark.parametrize("options", [{}, {"shortcut": "dropout"}], ids=str)
def test_lower_precision_gives_the_same_too(options):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network(**options)
    assert model.get_layer("stage1_unit1").compute_dtype == "bfloat16"
    assert_computes_the_same(model, share_traces(model), True, 1e-3)


def test_a_random_layer_draws_for_each_unit_and_call_by_itself():
    model = network(shortcut="dropout")
    shared = share_traces(model)
    call = tf.function(functools.partial(shared, training=True))
    assert not np.allclose(call(images()), call(images()))
    states = [v for v in shared.non_trainable_variables if "seed" in v.path]
    assert len({tuple(state.numpy()) for state in states}) == len(states) == 6


def test_variables_are_the_networks_own_in_its_order():
    model = network(shortcut="dropout")
    shared = share_traces(model)
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        own, others = getattr(model, name), getattr(shared, name)
        assert [v.path for v in own] == [v.path for v in others]
        assert all(v is other for v, other in zip(own, others, strict=True))


@pytest.fixture
def calls(monkeypatch):
    """Lists the names of the units whose Python code runs."""
    names, call = [], ResidualUnit.call

    def counted(self, x, training=None):
        names.append(self.name)
        return call(self, x, training=training)

    monkeypatch.setattr(ResidualUnit, "call", counted)
    return names


@pytest.mark.parametrize(
    ("options", "units", "traces"),
    [
        # The first unit of each stage, and the others: six kinds at any depth.
        ({"depth": 20}, 9, 6),
        ({"depth": 56}, 27, 6),
        ({"depth": 20, "block": "bottleneck"}, 6, 6),
        ({"depth": 20, "block": "single"}, 18, 6),
        # Each unit drops residuals at a rate of its own.
        ({"depth": 20, "stochastic_depth_rate": 0.5}, 9, 9),
    ],
)
def test_each_kind_of_unit_is_traced_once(calls, options, units, traces):
    model = network(**options)
    calls.clear()
    shared = share_traces(model)
    assert calls == []
    step = tf.function(functools.partial(shared, training=True))
    for _ in range(2):
        step(images())
    assert len(calls) == len(set(calls)) == traces
    tf.function(functools.partial(model, training=True))(images())
    assert len(calls) - traces == units


def test_each_mode_and_input_has_a_trace_of_its_own(calls):
    model = network()
    shared = share_traces(model)
    calls.clear()
    for training in (True, False):
        for size in (2, 3):
            tf.function(functools.partial(shared, training=training))(images()[:size])
    assert len(calls) == 4 * 6


class Doubled(ResidualUnit):
    """A user's own unit, whose configuration does not tell the difference."""

    factor = 2

    def call(self, x, training=None):
        return self.factor * super().call(x, training=training)


def test_a_unit_of_another_class_is_called_as_it_is():
    factory = functools.partial(Doubled, projection="zero_pad")
    model = network(unit=factory)
    model.get_layer("stage2_unit2").factor = 5
    shared = share_traces(model)
    for layer in model.layers[1:]:  # but the input
        assert shared.get_layer(layer.name) is layer
    assert_computes_the_same(model, shared, True, 1e-5)


def test_units_whose_shortcuts_differ_share_nothing(calls):
    # The same shape, variables and class, but three rates.
    def unit(name, **arguments):
        rate = {"stage1_unit2": 0.1, "stage1_unit3": 0.7}.get(name, 0.5)
        return ResidualUnit(name=name, shortcut=Dropout(rate), **arguments)

    model = network(depth=20, unit=unit)
    shared = share_traces(model)
    assert_computes_the_same(model, shared, False, 1e-5)
    calls.clear()
    tf.function(functools.partial(shared, training=True))(images())
    assert len(calls) == 7


def test_a_shared_trace_is_right_whether_xla_compiles_its_caller_or_not():
    """Images whose mean is 1,000 deviations: XLA's own BN would return NaN."""
    x = np.random.default_rng(0).normal(1000, 1, (8, 8, 8, 4)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    units = [ResidualUnit(4, name=name) for name in ("stage1_unit1", "stage1_unit2")]
    model = share_traces(keras.Model(inputs, units[1](units[0](inputs))))
    values = [
        [v.value for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]

    def step(*values):
        y, changed = model.stateless_call(*values, x, training=True)
        return y - x, *changed[:2]

    callers = [tf.function(step, jit_compile=jit) for jit in (False, True, False)]
    for y, mean, variance in (caller(*values) for caller in callers):
        assert np.isfinite(y).all()
        np.testing.assert_allclose(mean, 0.1 * x.mean((0, 1, 2), "float64"), rtol=1e-6)
        np.testing.assert_allclose(
            variance, 0.9 + 0.1 * x.var((0, 1, 2), dtype="float64"), rtol=1e-5
        )
