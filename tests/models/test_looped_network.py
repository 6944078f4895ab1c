"""Networks with loops over equal units, and with recomputation, compute what they did before."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from resnext import ResNeXtUnit, of_keras
from variants import ORDERS, PYRAMID, SHORTCUTS

from keras_preact.layers import Conv2D, Dropout, ResidualUnit, grouped
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.models import ResNetV2
from keras_preact.models.looped_network import LoopedNetwork, stacked, unstacked
from keras_preact.models.unit_loops import Remat

PLAIN = "plain"
REMATS = [Remat(), Remat("unit"), Remat("group", 2), Remat("auto")]


def images(batch=6, channels=3):
    return np.random.default_rng(1).normal(size=(batch, 8, 8, channels)).astype("float32")


def prepared(model):
    """Moves statistics and biases far from their initial values."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def network(**options):
    return prepared(ResNetV2(**{"depth": 20, "input_shape": (8, 8, 3), **options}))


def row(units=5, unit=ResidualUnit, **options):
    """A model of equal units alone, and a classifier."""
    inputs = x = keras.Input((8, 8, 4))
    for number in range(1, units + 1):
        x = unit(4, name=f"stage1_unit{number}", **options)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return prepared(keras.Model(inputs, keras.layers.Dense(3)(x)))


def computed(model, remat, xla=False, **options):
    """Logits, gradients and changed values of a training step by path; and the function."""
    loops = remat is not PLAIN
    function = LoopedNetwork(model, loops, remat if loops else Remat(), **options)
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    values = {key: tf.convert_to_tensor(value) for key, value in values.items()}
    keys = [*stacked({v.path: v.value for v in model.trainable_variables}, function.stacks)]

    @tf.function(jit_compile=xla)
    def step(values, x):
        watched = [values[key] for key in keys]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            logits, changed = function(values, x, training=True, differentiates=True, compiles=xla)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        gradients = tape.gradient(loss, watched, unconnected_gradients="zero")
        return logits, dict(zip(keys, gradients, strict=True)), changed

    logits, *others = step(values, images(channels=model.input_shape[-1]))
    others = [unstacked(other, function.stacks) for other in others]
    others = [{path: np.array(v) for path, v in other.items()} for other in others]
    return logits.numpy(), *others, function


def assert_close(first, second, tolerance):
    """Equal in their norms: single numbers near 0 are mostly rounding."""
    assert first.dtype == second.dtype and first.shape == second.shape
    difference = np.linalg.norm(np.float64(first) - np.float64(second))
    assert difference <= tolerance * np.linalg.norm(np.float64(first))


def assert_same(first, second, tolerance):
    (logits, *groups), (logits2, *groups2) = first[:3], second[:3]
    assert np.ptp(logits) > 0.1, "a network that says nothing proves nothing"
    assert_close(logits, logits2, tolerance)
    for values, values2 in zip(groups, groups2, strict=True):
        assert values.keys() == values2.keys()
        for path, value in values.items():
            assert_close(value, values2[path], tolerance)


def assert_computes_the_same(model, remats=REMATS, tolerance=0.0, **options):
    plain = computed(model, PLAIN)
    for remat in remats:
        looped = computed(model, remat, **options)
        assert looped[-1].stacks and not looped[-1].unrolled
        assert_same(plain, looped, tolerance)
    return plain


# The gradients of x meet in another order where a gate reads it too.
ROUNDING = {"exclusive_gating": 3e-6, "shortcut_only_gating": 3e-6}


@pytest.mark.parametrize("order", [*ORDERS, PYRAMID], ids=str)
@pytest.mark.parametrize("block", ["basic", "bottleneck", "single"])
def test_orders_are_computed_to_the_last_bit(order, block):
    filters = 1 if block == "bottleneck" else 4
    unit = functools.partial(_unit, filters, block=block, order=order)
    assert_computes_the_same(row(unit=unit), [Remat(), Remat("group", 2)])


def _unit(filters, _, **options):
    return ResidualUnit(filters, **options)


@pytest.mark.parametrize("shortcut", [*SHORTCUTS, "none"])
def test_shortcuts_are_computed_to_the_last_bit(shortcut):
    assert_computes_the_same(row(shortcut=shortcut), REMATS, ROUNDING.get(shortcut, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", [*SHORTCUTS, "none"])
@pytest.mark.parametrize("order", ORDERS)
def test_all_units_with_all_shortcuts_are_computed_to_the_last_bit(order, shortcut):
    model = row(order=order, shortcut=shortcut)
    assert_computes_the_same(model, REMATS, ROUNDING.get(shortcut, 0.0))


@pytest.mark.parametrize(
    "options",
    [{}, {"shortcut": "dropout"}, {"stochastic_depth_rate": 0.4}],
    ids=str,
)
def test_whole_networks_are_computed_to_the_last_bit(options):
    model = network(**options)
    before = {v.path: v.numpy() for v in model.non_trainable_variables}
    _, _, changed, _ = assert_computes_the_same(model, [Remat(), Remat("unit")])
    for path, old in before.items():
        # Every statistic moves and every random layer goes on, once: as without loops.
        assert not np.array_equal(old, changed[path])


def test_statistics_are_those_of_one_update():
    model = row(3)
    before = {v.path: v.numpy() for v in model.non_trainable_variables}
    x = images(channels=4)
    # The first BN of the first unit sees the images themselves.
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    for remat in REMATS:
        _, _, changed, _ = computed(model, remat)
        for name, batch in (("moving_mean", mean), ("moving_variance", variance)):
            path = f"stage1_unit1/preact_bn/{name}"
            expected = 0.9 * before[path] + 0.1 * batch
            np.testing.assert_allclose(changed[path], expected, rtol=1e-5)


@pytest.mark.parametrize("remat", REMATS[:3], ids=lambda remat: remat.kind)
def test_lower_precision_gives_the_same_too(remat):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network(shortcut="dropout")
    assert model.get_layer("stage1_unit1").compute_dtype == "bfloat16"
    assert_computes_the_same(model, [remat], 1e-3)


@pytest.mark.parametrize(
    "options", [{"xla": True}, {"compiles_units": True}], ids=["whole", "units"]
)
@pytest.mark.parametrize("remat", REMATS[:3], ids=lambda remat: remat.kind)
def test_xla_compiles_loops_or_units(options, remat):
    # XLA draws other numbers, so that the network without loops is compiled as well.
    model = row(3, stochastic_depth_rate=0.3)
    assert_same(computed(model, PLAIN, xla=True), computed(model, remat, **options), 1e-4)


@pytest.mark.parametrize("options", [{}, {"compiles_units": True}], ids=str)
def test_bn_is_right_far_from_zero_inside_a_loop(options):
    """Images whose mean is 1,000 deviations: XLA's own BN would return NaN."""
    x = np.random.default_rng(0).normal(1000, 1, (8, 8, 8, 4)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    units = [ResidualUnit(4, name=name) for name in ("stage1_unit1", "stage1_unit2")]
    model = keras.Model(inputs, units[1](units[0](inputs)))
    function = LoopedNetwork(model, **options)
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    _, changed = tf.function(functools.partial(function, training=True))(values, x)
    moving = unstacked(changed, function.stacks)["stage1_unit1/preact_bn/moving_variance"]
    expected = 0.9 + 0.1 * x.var(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(moving, expected, rtol=1e-4)


def test_what_is_not_learned_has_no_gradient_and_lets_that_of_others_through():
    model = row()
    function = LoopedNetwork(model)
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    values = {key: tf.convert_to_tensor(value) for key, value in values.items()}
    x, kernel = tf.constant(images(channels=4)), "stage1_unit1/conv1/kernel"

    @tf.function
    def gradients(learning):
        with tf.GradientTape() as tape:
            tape.watch([x, values[kernel]])
            logits, _ = function(values, x, training=True, differentiates=True, learning=learning)
        return tape.gradient(logits, [x, values[kernel]])

    by_x, by_kernel = gradients(None)
    by_x2, by_kernel2 = gradients(frozenset({"dense/kernel"}))
    np.testing.assert_array_equal(by_x, by_x2)
    assert np.any(by_kernel) and not np.any(by_kernel2)


@pytest.fixture
def calls(monkeypatch):
    """Lists the names of the units whose Python code runs."""
    names, call = [], ResidualUnit.call

    def counted(self, x, training=None):
        names.append(self.name)
        return call(self, x, training=training)

    monkeypatch.setattr(ResidualUnit, "call", counted)
    return names


@pytest.mark.parametrize("remat", REMATS[:3], ids=lambda remat: remat.kind)
@pytest.mark.parametrize(
    ("options", "units"),
    [
        # The first unit of each stage, and the others: six kinds at any depth.
        ({"depth": 20}, 9),
        ({"depth": 56}, 27),
        ({"depth": 29, "block": "bottleneck"}, 9),
        ({"depth": 20, "stochastic_depth_rate": 0.5}, 9),
    ],
    ids=str,
)
def test_each_kind_of_unit_is_traced_once(calls, options, units, remat):
    model = network(**options)
    calls.clear()
    computed(model, remat)
    assert len(calls) == len(set(calls)) == 6
    calls.clear()
    computed(model, PLAIN)
    assert len(calls) == units


@pytest.mark.parametrize("remat", REMATS[:3], ids=lambda remat: remat.kind)
def test_graph_and_program_of_xla_have_each_kind_of_unit_once(remat):
    sizes = [_sizes(network(depth=depth), remat) for depth in (20, 32)]
    assert sizes[0] == sizes[1]
    plain = [_sizes(network(depth=depth), PLAIN) for depth in (20, 32)]
    assert plain[1]["convolution"] > plain[0]["convolution"] > sizes[0]["convolution"]


def _sizes(model, remat):
    """Number of nodes of the graph of a step, and of operations of XLA's program."""
    loops = remat is not PLAIN
    function = LoopedNetwork(model, loops, remat if loops else Remat())
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    values = {key: tf.convert_to_tensor(value) for key, value in values.items()}

    @tf.function(jit_compile=True)
    def step(values, x):
        with tf.GradientTape() as tape:
            tape.watch(values["stem_conv/kernel"])
            logits, _ = function(values, x, training=True, differentiates=True, compiles=True)
        return tape.gradient(logits, values["stem_conv/kernel"])

    program = step.experimental_get_compiler_ir(values, images())(stage="hlo")
    return {name: program.count(f" {name}(") for name in ("convolution", "while", "dot")}


class Doubled(ResidualUnit):
    """A user's own unit, whose configuration does not tell the difference."""

    factor = 2

    def call(self, x, training=None):
        return self.factor * super().call(x, training=training)


def test_units_of_a_users_own_class_are_in_a_loop_as_far_as_they_are_equal(calls):
    model = row(unit=Doubled)
    assert_computes_the_same(model)
    model.get_layer("stage1_unit4").factor = 5
    function = LoopedNetwork(model)
    assert {len(stack) for stack in function.stacks} == {3}
    assert_same(computed(model, PLAIN), computed(model, Remat()), 0)


@pytest.mark.parametrize("conv", [Conv2D, of_keras])
def test_units_with_grouped_convolutions_are_in_loops(conv):
    model = row(unit=functools.partial(ResNeXtUnit, conv=conv))
    grouped.use_in_keras_layers(model)
    assert_computes_the_same(model, [Remat(), Remat("group", 2)], 1e-5)


def test_grouped_convolutions_in_loops_compile_and_compute_in_bfloat16():
    model = row(unit=ResNeXtUnit)
    plain = computed(model, PLAIN)
    assert_same(plain, computed(model, Remat(), xla=True), 1e-3)
    low = row(unit=ResNeXtUnit, dtype="mixed_bfloat16")
    low.set_weights(model.get_weights())
    assert_same(computed(low, PLAIN), computed(low, Remat()), 2e-2)


def test_units_whose_shortcuts_differ_are_in_loops_apart():
    def unit(_, name):
        rate = {"stage1_unit2": 0.1, "stage1_unit3": 0.7}.get(name, 0.5)
        return ResidualUnit(4, name=name, shortcut=Dropout(rate))

    model = row(units=6, unit=unit)
    function = LoopedNetwork(model)
    assert {stack[0].partition("/")[0] for stack in function.stacks} == {"stage1_unit4"}
    assert_same(computed(model, PLAIN), computed(model, Remat("unit")), 0)


@keras.saving.register_keras_serializable("test_looped_network")
class Noisy(keras.layers.Layer):
    """A unit of plain Keras layers that drops values and counts its calls."""

    def __init__(self, filters, generator=True, **options):
        super().__init__(**options)
        self.conv = keras.layers.Conv2D(filters, 3, padding="same")
        self.dropout = keras.layers.Dropout(0.5)
        self.generator = generator

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.count = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="count"
        )

    def call(self, x, training=None):
        if training:
            self.count.assign(self.count + 1)
        dropped = x
        if self.generator:
            dropped = self.dropout(x, training=training)
        elif training:
            dropped = x * tf.cast(tf.random.uniform(tf.shape(x)) < 0.5, x.dtype)
        return x + self.conv(keras.ops.relu(dropped))


def test_a_users_random_unit_draws_the_same_numbers_again():
    model = row(unit=Noisy)
    _, _, changed, _ = assert_computes_the_same(model)
    assert changed["stage1_unit5/count"] == 1
    states = [tuple(v) for path, v in changed.items() if path.endswith("seed_generator_state")]
    assert len(set(states)) == len(states) == 5


def test_a_unit_that_draws_from_elsewhere_is_in_no_loop():
    model = row(unit=functools.partial(Noisy, generator=False))
    *_, changed, function = computed(model, Remat("unit"))
    # The graph of one of them is found to be no pure function.
    [line] = function.unrolled
    assert "stage1_unit1 to stage1_unit5" in line and "RandomUniform" in line
    assert "SeedGenerator" in line
    assert all(changed[f"stage1_unit{number}/count"] == 1 for number in range(1, 6))


def test_bn_keeps_its_statistics_in_the_units_that_say_so():
    model = row()
    for number in range(1, 6):
        for layer in bn_layers(model.get_layer(f"stage1_unit{number}")):
            layer.keeps_statistics = True
    before = {v.path: v.numpy() for v in model.non_trainable_variables}
    _, _, changed, _ = assert_computes_the_same(model, tolerance=1e-5)
    for path, value in before.items():
        np.testing.assert_array_equal(changed[path], value)
    function = LoopedNetwork(model)
    for layer in bn_layers(model.get_layer("stage1_unit2")):
        layer.keeps_statistics = False
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    _, changed = tf.function(functools.partial(function, training=True))(values, images(channels=4))
    changed = unstacked(changed, function.stacks)
    kept = {path for path, value in before.items() if np.array_equal(changed[path], value)}
    assert kept == {path for path in before if not path.startswith("stage1_unit2/")}
    assert "some of them keep their BN statistics" in function.unrolled[0]


def test_inference_is_that_of_the_network():
    model = network(shortcut="dropout", stochastic_depth_rate=0.2)
    function = LoopedNetwork(model)
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    logits, changed = tf.function(functools.partial(function, training=False))(values, images())
    np.testing.assert_allclose(logits, model(images(), training=False), rtol=1e-5)
    for path, value in unstacked(changed, function.stacks).items():
        own = next(v for v in model.variables if v.path == path)
        np.testing.assert_array_equal(value, own)


def test_a_network_that_is_no_chain_is_computed_as_it_is():
    inputs = keras.Input((8, 8, 4))
    unit = ResidualUnit(4, name="stage1_unit1")
    twice = keras.layers.Add()([unit(unit(inputs)), inputs])
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(twice))
    model = prepared(keras.Model(inputs, logits))
    looped = computed(model, Remat("unit"))
    assert not looped[-1].stacks
    assert_same(computed(model, PLAIN), looped, 0)


@pytest.mark.parametrize(
    ("remat", "length", "group"),
    [
        (Remat(), 110, None),
        (Remat("unit"), 110, None),
        (Remat("group", 4), 110, 4),
        (Remat("group", 400), 110, 110),
        (Remat("auto"), 110, 10),
        (Remat("auto"), 2, 1),
    ],
)
def test_groups_are_as_long_as_asked_or_near_the_square_root(remat, length, group):
    assert remat.group(length) == group
