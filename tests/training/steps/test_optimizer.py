"""The updates of the optimizers, against Keras' own and against written-out formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_preact
from keras_preact.training import TrainConfig
from keras_preact.training.steps.optimizer import AdamW, Lamb, MomentumSGD, clipped, make_optimizer
from keras_preact.training.steps.rows import RowLayout, norm
from keras_preact.training.steps.schedules import DecaySchedule, StepSchedule, make_schedule
from keras_preact.training.steps.train_state import Lines, make_state

CONSTANT = StepSchedule(0.1)
SHAPES = {"conv1/kernel": (3, 3, 5), "logits/kernel": (7, 33), "bn1/gamma": (20,)}
STEPS = 6


def some_variables():
    random = np.random.default_rng(0)
    return [
        keras.Variable(random.normal(size=shape).astype("float32"), name=path.replace("/", "_"))
        for path, shape in SHAPES.items()
    ]


def gradients():
    """Those of each variable at each step."""
    random = np.random.default_rng(1)
    return [
        [random.normal(size=s).astype("float32") for s in SHAPES.values()] for _ in range(STEPS)
    ]


def in_rows(optimizer, decayed=None, **of_lines):
    """Takes the steps on one row, compiled by XLA; returns the values of each variable by step.

    Args:
        optimizer: to test.
        decayed: number of first variables that decay; None for all.
        of_lines: further fields of `Lines`.
    """
    variables = some_variables()
    layout = RowLayout(variables)
    lengths = [layout.lines([v.path]) for v in variables][:decayed]
    lines = Lines(sum(lengths), np.repeat(np.arange(len(lengths)), lengths), **of_lines)

    @tf.function(jit_compile=True)
    def update(weights, moments, gradient, step):
        return optimizer.update(weights, moments, gradient, step, lines)

    weights = layout.pack({v.path: v.value for v in variables})
    moments, found = tuple(tf.zeros_like(weights) for _ in optimizer.saved_names), []
    for step, values in enumerate(gradients()):
        by_path = {v.path: g for v, g in zip(variables, values, strict=True)}
        row = layout.pack(by_path)
        weights, moments = update(weights, moments, row, tf.constant(step, tf.int64))
        found.append([value.numpy() for value in layout.unpack(weights).values()])
    # What fills the last line of a variable stays zero.
    assert np.abs(layout.from_arrays(layout.to_arrays(weights.numpy())) - weights).max() == 0
    return found


def in_keras(optimizer):
    """Takes the same steps with an optimizer of Keras."""
    variables, found = some_variables(), []
    optimizer.build(variables)
    for values in gradients():
        optimizer.apply([tf.constant(value) for value in values])
        found.append([variable.numpy() for variable in variables])
    return found


def assert_near(ours, theirs, **tolerance):
    for step, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        for a, b in zip(own, other, strict=True):
            np.testing.assert_allclose(a, b, err_msg=str(step), **{"atol": 2e-6, **tolerance})


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("form", ["caffe", "torch"])
def test_sgd_is_that_of_keras_at_a_constant_rate_in_both_forms(form, nesterov):
    theirs = keras.optimizers.SGD(0.1, momentum=0.8, nesterov=nesterov)
    ours = MomentumSGD(CONSTANT, momentum=0.8, form=form, nesterov=nesterov)
    assert_near(in_rows(ours), in_keras(theirs))


@pytest.mark.parametrize("nesterov", [False, True])
def test_caffes_form_is_that_of_keras_across_a_drop(nesterov):
    schedule = StepSchedule(0.1, (3,), 0.1)
    theirs = keras.optimizers.SGD(schedule, momentum=0.8, nesterov=nesterov)
    ours = MomentumSGD(schedule, momentum=0.8, nesterov=nesterov)
    assert_near(in_rows(ours), in_keras(theirs))


def test_sgd_without_momentum_has_no_rows_and_is_that_of_keras():
    for form in ("caffe", "torch"):
        ours = MomentumSGD(CONSTANT, momentum=0.0, form=form)
        assert ours.saved_names == ()
        assert_near(in_rows(ours), in_keras(keras.optimizers.SGD(0.1)))


@pytest.mark.parametrize("schedule", [CONSTANT, DecaySchedule("cosine", 0.1, 6, warmup_steps=2)])
def test_adamw_is_that_of_keras_but_for_the_place_of_epsilon(schedule):
    # So small an epsilon makes no difference.
    options = {"weight_decay": 0.2, "epsilon": 1e-12}
    theirs = keras.optimizers.AdamW(schedule, beta_1=0.8, beta_2=0.95, **options)
    ours = AdamW(schedule, beta1=0.8, beta2=0.95, **options)
    assert_near(in_rows(ours), in_keras(theirs), rtol=1e-5)


def test_lamb_is_that_of_keras_without_decay():
    theirs = keras.optimizers.Lamb(0.1, beta_1=0.8, beta_2=0.95, epsilon=1e-6)
    ours = Lamb(CONSTANT, beta1=0.8, beta2=0.95, epsilon=1e-6)
    assert_near(in_rows(ours), in_keras(theirs), rtol=1e-5)


def written_out(kind, decay, epsilon, undecayed, factors=(1, 1, 1), begins=(0, 0, 0)):
    """Algorithm 2 of AdamW's paper and of LAMB's, one variable after the other, in float64."""
    beta1, beta2, rate, found = 0.8, 0.95, 0.1, []
    weights = [variable.numpy().astype(np.float64) for variable in some_variables()]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for step, values in enumerate(gradients()):
        for place, g in enumerate(np.float64(value) for value in values):
            w, (m, v) = weights[place], moments[place]
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            moments[place] = m, v
            count = step + 1 - begins[place]
            change = m / (1 - beta1**count) / (np.sqrt(v / (1 - beta2**count)) + epsilon)
            if place not in undecayed:
                change = change + decay * w
                if kind is Lamb:
                    change = change * np.linalg.norm(w) / np.linalg.norm(change)
            weights[place] = w - rate * factors[place] * change
        found.append(list(weights))
    return found


@pytest.mark.parametrize("kind", [AdamW, Lamb])
@pytest.mark.parametrize("undecayed", [(), (1, 2)])
def test_decay_and_trust_ratios_follow_the_papers(kind, undecayed):
    ours = kind(CONSTANT, beta1=0.8, beta2=0.95, epsilon=0.01, weight_decay=0.3)
    expected = written_out(kind, 0.3, 0.01, undecayed)
    assert_near(in_rows(ours, decayed=3 - len(undecayed)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [AdamW, Lamb])
def test_a_factor_applies_to_change_and_decay_alike(kind):
    # 3, 15 and 2 lines.
    column = np.repeat(np.float32([0.5, 2, 1]), [3, 15, 2])[:, None]
    ours = kind(CONSTANT, beta1=0.8, beta2=0.95, epsilon=0.01, weight_decay=0.3)
    expected = written_out(kind, 0.3, 0.01, (2,), factors=(0.5, 2, 1))
    assert_near(in_rows(ours, decayed=2, factors=column), expected, rtol=1e-5)


def test_the_first_step_of_a_variable_that_learns_later_is_its_first():
    """Otherwise AdamW's first steps after a thaw would be three times as long."""
    layout = RowLayout(some_variables()[:1])
    gradient = tf.ones(layout.shape)
    lines = Lines(3, first_steps=np.full([3, 1], 1000, np.float32))
    zeros = tf.zeros(layout.shape)
    weights, _ = AdamW(CONSTANT).update(
        zeros, (zeros, zeros), gradient, tf.constant(1000, tf.int64), lines
    )
    np.testing.assert_allclose(weights, -0.1, rtol=1e-5)


def test_lamb_moves_a_variable_of_zeros_and_one_without_gradient_by_adams_change():
    layout = RowLayout(some_variables()[:2])
    row = tf.concat([tf.zeros([3, 16]), tf.ones([15, 16])], axis=0)
    lines = Lines(18, np.repeat(np.arange(2, dtype=np.int32), [3, 15]))
    zeros = tf.zeros(layout.shape)
    weights, _ = Lamb(CONSTANT).update(
        row, (zeros, zeros), 1 - row, tf.constant(0, tf.int64), lines
    )
    np.testing.assert_allclose(weights[:3], -0.1, rtol=1e-5)
    np.testing.assert_allclose(weights[3:], 1, rtol=1e-6)


@pytest.mark.parametrize("largest", [0.5, 7.0, 1000.0])
def test_clipping_is_that_of_tensorflow(largest):
    variables, [values, *_] = some_variables(), gradients()
    layout = RowLayout(variables)
    row = layout.pack({v.path: g for v, g in zip(variables, values, strict=True)})
    found = tf.function(lambda row: clipped(row, norm(row), largest), jit_compile=True)(row)
    expected, _ = tf.clip_by_global_norm(list(map(tf.constant, values)), largest)
    for own, theirs in zip(layout.unpack(found).values(), expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5)


def test_updates_follow_the_written_out_formula_across_a_drop():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(6, 3, 4))
    decay, momentum, rates = 0.05, 0.9, [0.01, 0.1, 0.1, 0.1, 0.01, 0.01]
    schedule = StepSchedule(0.1, (4,), 0.1, warmup_steps=1, warmup_learning_rate=0.01)
    for form in ("caffe", "torch"):
        optimizer = MomentumSGD(schedule, momentum=momentum, weight_decay=decay, form=form)
        weights = tf.constant(start, tf.float32)
        moments = (tf.zeros_like(weights),)

        # The second of the three lines is the last that decays.
        w, v, decayed = start.copy(), np.zeros_like(start), np.array([[1], [1], [0]])
        for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
            gradient = tf.constant(gradient, tf.float32)
            step = tf.constant(step, tf.int64)
            weights, moments = optimizer.update(weights, moments, gradient, step, Lines(2))
            total = gradient.numpy() + decay * decayed * w
            v = momentum * v - rate * total if form == "caffe" else momentum * v + total
            w = w + v if form == "caffe" else w - rate * v
            np.testing.assert_allclose(weights, w, atol=1e-6)
            np.testing.assert_allclose(moments[0], v, atol=1e-6)


def test_after_a_drop_only_caffes_form_coasts_on():
    """The gradient is 1; the rate falls from 1 to 0.001 after 50 steps."""
    length = {}
    for form in ("caffe", "torch"):
        optimizer = MomentumSGD(StepSchedule(1.0, (50,), 0.001), form=form)
        row, moments = tf.zeros([1, 16]), (tf.zeros([1, 16]),)
        for step in range(51):
            before = row
            row, moments = optimizer.update(
                row, moments, tf.ones([1, 16]), tf.constant(step, tf.int64), Lines(1)
            )
        length[form] = float(tf.abs(row - before)[0, 0])
    assert length["caffe"] > 8 and length["torch"] < 0.011


def updates_of_zero_gradients(**options):
    """Tells by path whether weight decay alone moves a variable."""
    config = TrainConfig(weight_decay=0.1, warmup_steps=0, **options)
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), shortcut="exclusive_gating")
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    optimizer = make_optimizer(config, make_schedule(config, 100), model)
    state = make_state(config, model, optimizer)
    rows, step = state.rows.read(), tf.constant(0, tf.int64)
    zeros = tf.zeros_like(rows.weights)
    updated, _ = optimizer.update(rows.weights, rows.moments, zeros, step, state.lines)
    values = state.weights.unpack(updated)
    assert values.keys() == {variable.path for variable in model.trainable_variables}
    return {path: not np.allclose(value, 1) for path, value in values.items()}


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adamw", "decay_bn": True, "learning_rate": 0.1}]
)
def test_all_parameters_decay_by_default_as_in_the_authors_code(options):
    assert all(updates_of_zero_gradients(**options).values())


def test_decay_bn_false_spares_gamma_and_beta_alone():
    moved = updates_of_zero_gradients(decay_bn=False)
    spared = {path for path, moves in moved.items() if not moves}
    assert spared == {path for path in moved if path.rpartition("/")[2] in ("gamma", "beta")}
    assert "logits/bias" not in spared and "stem_conv/kernel" not in spared


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_adamw_and_lamb_spare_gamma_beta_and_biases_by_default(optimizer):
    moved = updates_of_zero_gradients(optimizer=optimizer, learning_rate=0.1)
    spared = {path for path, moves in moved.items() if not moves}
    ends = ("gamma", "beta", "bias")
    assert spared == {path for path in moved if path.rpartition("/")[2] in ends}
