"""Variables in a row, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training.steps import rows
from keras_preact.training.steps.rows import Part, RowLayout

SHAPES = {"a": (3, 3, 1, 16), "b": (10,), "c": (), "d": (64, 10), "e": (17,)}


def variables(shapes=SHAPES, dtype="float32"):
    return [
        keras.Variable(np.zeros(shape), name=name, dtype=dtype) for name, shape in shapes.items()
    ]


def values(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def assert_equal(first, second):
    assert [*first] == [*second]
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_packed_is_unpacked(jit_compile):
    layout, expected = RowLayout(variables()), values()
    row = tf.function(layout.pack, jit_compile=jit_compile)(expected)
    assert tuple(row.shape) == layout.shape == (9 + 1 + 1 + 40 + 2, 16)
    assert_equal(expected, tf.function(layout.unpack, jit_compile=jit_compile)(row))
    # Neither gains nor loses a value.
    assert np.count_nonzero(row) == sum(value.size for value in expected.values())
    np.testing.assert_allclose(
        rows.norm(row),
        np.sqrt(sum(np.sum(np.float64(v) ** 2) for v in expected.values())),
        rtol=1e-6,
    )


def test_the_host_packs_as_the_device_does():
    layout, expected = RowLayout(variables()), values()
    row = layout.from_arrays(expected)
    np.testing.assert_array_equal(row, layout.pack(expected))
    assert_equal(expected, layout.to_arrays(row))
    flat = layout.to_values(row)
    np.testing.assert_array_equal(flat, np.concatenate([v.ravel() for v in expected.values()]))
    np.testing.assert_array_equal(layout.from_values(flat), row)


@pytest.mark.parametrize("paths", ["a", "bd", "e", "abcde"])
def test_a_part_of_a_row_is_taken_and_put_back_to_the_last_bit(paths):
    layout, old, new = RowLayout(variables()), values(), values(1)
    part = Part(layout, paths)
    row, shorter = layout.pack(old), part.pack(new)
    chosen = {path: new[path] if path in paths else old[path] for path in SHAPES}
    np.testing.assert_array_equal(part.of(layout.pack(new)), shorter)
    np.testing.assert_array_equal(part.put(row, shorter), layout.pack(chosen))
    column = part.repeated({path: ord(path) for path in SHAPES})
    mask = layout.lines_where(lambda path: path in paths)
    assert column.shape == (len(shorter), 1) and mask.shape == (len(row), 1)
    assert mask.sum() == len(shorter)
    numbers = layout.pack({path: np.full(shape, ord(path), "f") for path, shape in SHAPES.items()})
    np.testing.assert_array_equal(column[:, 0], np.max(part.of(numbers), axis=1))


def test_the_part_of_all_variables_is_the_row_itself():
    layout = RowLayout(variables())
    part, row = Part(layout, SHAPES), layout.pack(values())
    assert part.is_whole and part.of(row) is row and part.put(None, row) is row


def test_a_layout_of_no_variables_has_a_row_of_one_line():
    layout = RowLayout([])
    assert tuple(layout.pack({}).shape) == layout.shape == (1, 16)
    assert layout.unpack(layout.pack({})) == {} == layout.to_arrays(np.zeros((1, 16), np.float32))
    assert layout.to_values(layout.from_values(np.zeros(0, np.float32))).shape == (0,)
    assert float(rows.norm(layout.pack({}))) == 0


def test_the_norm_of_millions_of_values_keeps_its_digits():
    row = np.full((2**17 + 3, rows.WIDTH), 1.1, np.float32)
    for jit_compile in (False, True):
        found = tf.function(rows.norm, jit_compile=jit_compile)(row)
        np.testing.assert_allclose(found, np.sqrt(np.sum(np.float64(row) ** 2)), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_with_one_bad_value_is_not_finite(value):
    good, bad = np.ones((3, rows.WIDTH), np.float32), np.ones((3, rows.WIDTH), np.float32)
    bad[2, 5] = value
    assert rows.are_finite([tf.Variable(good), tf.Variable(good)])
    assert not rows.are_finite([tf.Variable(good), tf.Variable(bad)])


def test_weights_of_other_types_are_refused():
    with pytest.raises(ValueError, match=r"must be float32.*Received: .*a of bfloat16"):
        RowLayout(variables({"a": (3,)}, "bfloat16"))


def test_stacks_lie_together_in_a_row_and_keep_the_order_of_saved_values():
    stack = ("a1", "a2", "a3")
    shapes = {"a1": (3, 7), "x": (5,), "a2": (3, 7), "y": (16,), "a3": (3, 7)}
    layout = RowLayout(variables(shapes), [stack, ("elsewhere1", "elsewhere2")])
    assert [*layout.shapes] == [*stack, "x", "y"]
    assert layout.keys(["y", "a2", "a1", "a3"]) == ["y", "a1"]
    random = np.random.default_rng(0)
    expected = {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    by_key = {"a1": np.stack([expected[name] for name in stack])}
    by_key |= {name: expected[name] for name in "xy"}
    row = layout.pack(by_key).numpy()
    np.testing.assert_array_equal(row, layout.from_arrays(expected))
    assert_equal(by_key, layout.unpack(row))
    # As checkpoints have them, whatever is stacked.
    flat = np.concatenate([value.ravel() for value in expected.values()])
    np.testing.assert_array_equal(layout.to_values(row), flat)
    np.testing.assert_array_equal(layout.from_values(flat), row)
