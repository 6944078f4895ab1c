"""int8 TFLite files whose residual additions may be in float32."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from residual_files import make_images, make_model, save
from tiny_nets import Function, make_net

from keras_preact import ResNetV2
from keras_preact.data import datasets
from keras_preact.exporting.formats import int8, ranges, saved_model, tflite
from keras_preact.exporting.formats.flatbuffer import operation, unpack
from keras_preact.exporting.graph import network, rewriting

FLOAT32, INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8
UNITS = ["stage1_unit1", "stage2_unit1", "stage3_unit1"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(tmp_path_factory.mktemp("int8") / "saved_model", make_model())


@pytest.fixture(scope="module")
def exact(plain):
    return tflite.convert(plain, "float32")


@pytest.fixture(scope="module")
def official(plain):
    """The file of TensorFlow's own calibration."""
    return tflite.convert(plain, "int8", images().calibration)


def images():
    return int8.Images(make_images(20), make_images(40, seed=2))


def read(file):
    return tflite.LiteModel(file).predict


def convert(exact, official, additions, read=read):
    return int8.convert(exact, lambda: official, read, images(), additions)


def operations(file):
    """Counts operations by name and type of the result."""
    model = unpack(file)
    [graph] = model.subgraphs
    return collections.Counter(
        (operation(model, each), graph.tensors[each.outputs[0]].type) for each in graph.operators
    )


@pytest.mark.parametrize("additions", ["auto", "int8"])
def test_where_int8_answers_as_float32_the_file_is_tensorflows_to_the_byte(
    exact, official, additions
):
    file, report = convert(exact, official, additions)
    assert file == official
    [attempt] = report.attempts
    assert (attempt.ranges, attempt.float_additions) == ("tensorflow", 0)
    assert attempt.size_bytes == len(official) and attempt.agreement >= 0.95
    assert (report.images, report.written, report.float_units) == (40, 0, [])
    assert report.after == report.before and [each.unit for each in report.before] == UNITS


def test_float_additions_are_between_convolutions_in_int8(exact, official):
    file, report = convert(exact, official, "float")
    before, after = operations(official), operations(file)
    assert before["CONV_2D", INT8] == after["CONV_2D", INT8] == 7
    assert ("CONV_2D", FLOAT32) not in after and ("FULLY_CONNECTED", FLOAT32) not in after
    # The sum of each unit, and the shift of each BN that follows one.
    assert after["ADD", FLOAT32] == 2 * len(UNITS) and ("ADD", INT8) not in after
    assert report.float_units == UNITS
    assert [each.float_additions for each in report.attempts] == [0, 3]
    assert report.written == 1 and report.attempts[1].size_bytes == len(file)
    for earlier, later in zip(report.before, report.after, strict=True):
        assert later.stream_decibels > earlier.stream_decibels
        assert earlier.rounding_decibels > 0 and later.rounding_decibels is None


def test_a_file_with_float_additions_takes_bytes_and_gives_what_float32_gives(exact, official):
    file, _ = convert(exact, official, "float")
    [graph] = unpack(file).subgraphs
    types = {graph.tensors[i].type for i in (*graph.inputs, *graph.outputs)}
    assert types == {schema.TensorType.UINT8}
    expected = read(exact)(images().held_out)
    errors = [np.abs(read(each)(images().held_out) - expected).mean() for each in (file, official)]
    assert np.ptp(expected) > 0.1, "a network that says nothing proves nothing"
    assert errors[0] < errors[1] < 0.03


def agreeing(shares):
    """Reads files whose share of equal answers depends on their float additions.

    Args:
        shares: by the number of float additions; of several files with as many, one after
            the other.
    """
    left = {count: list(each) for count, each in shares.items()}

    def read(file):
        counts = operations(file)
        is_exact = ("CONV_2D", INT8) not in counts
        share = 1.0 if is_exact else left[(counts["ADD", FLOAT32]) // 2].pop(0)

        def predict(images):
            wrong = np.arange(len(images)) >= round(share * len(images))
            return np.eye(2)[wrong.astype(int)]

        return predict

    return read


INTEGERS = [("tensorflow", 0), ("observed", 0), ("narrowed", 0)]


@pytest.mark.parametrize(
    ("additions", "shares", "attempts", "written"),
    [
        ("auto", {0: [0.5, 1.0]}, INTEGERS[:2], 1),
        ("auto", {0: [0.5, 0.6, 1.0]}, INTEGERS, 2),
        ("auto", {0: [0.5, 0.9, 0.8], 1: [1.0]}, [*INTEGERS, ("narrowed", 1)], 3),
        (
            "auto",
            {0: [0.5, 0.6, 0.75], 1: [0.8], 3: [0.97]},
            [*INTEGERS, ("narrowed", 1), ("narrowed", 3)],
            4,
        ),
        # None agrees: the best is taken.
        (
            "auto",
            {0: [0.5, 0.6, 0.7], 1: [0.9], 3: [0.8]},
            [*INTEGERS, ("narrowed", 1), ("narrowed", 3)],
            3,
        ),
        ("int8", {0: [0.5, 0.8, 0.7]}, INTEGERS, 1),
        ("float", {0: [1.0], 3: [0.5]}, [("observed", 0), ("narrowed", 3)], 1),
    ],
    ids=["observed", "narrowed", "half", "all", "none", "integers", "float"],
)
def test_where_int8_does_not_agree_more_precision_is_tried_until_it_does(
    exact, official, additions, shares, attempts, written
):
    file, report = convert(exact, official, additions, agreeing(shares))
    assert [(each.ranges, each.float_additions) for each in report.attempts] == attempts
    assert report.written == written
    assert operations(file)["ADD", FLOAT32] == 2 * attempts[written][1]
    assert len(report.float_units) == attempts[written][1]
    if report.float_units:
        # Those that lose most are the first in float32.
        rounding = {each.unit: each.rounding_decibels for each in report.before}
        worst = sorted(UNITS, key=rounding.get)[: attempts[written][1]]
        assert set(report.float_units) == set(worst)


def test_a_network_without_additions_is_converted_as_it_is(tmp_path, official):
    net = make_net(Function(tf.nn.relu))
    exact = tflite.convert(save(tmp_path / "saved_model", net), "float32")
    assert convert(exact, official, "float") == (official, None)


@pytest.mark.slow
def test_a_deep_trained_network_loses_less_with_float_additions(tmp_path):
    data = datasets.load("digits")
    model = ResNetV2(56, block="bottleneck", input_shape=data.info.image_shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 120)), loss)
    model.fit(
        data.info.normalize(data.train_source.images),
        data.train_source.labels,
        batch_size=96,
        epochs=8,
        verbose=0,
    )
    graph = rewriting.rewrite(network.trace(model, data.info.image_shape))[-1].graph
    preprocessing = data.info.preprocessing
    saved_model.write_for_tflite(graph, preprocessing, tmp_path / "saved_model")
    exact = tflite.convert(tmp_path / "saved_model", "float32")
    chosen = int8.Images(data.train_source.images[:200], data.eval_source.images[:200])

    def plain():
        raise AssertionError("TensorFlow's calibration takes minutes")

    file, report = int8.convert(exact, plain, read, chosen, "float")
    assert len(report.before) == 18 and report.attempts[0].ranges == "observed"
    assert report.attempts[1].agreement >= report.attempts[0].agreement
    gains = [
        later.stream_decibels - earlier.stream_decibels
        for earlier, later in zip(report.before, report.after, strict=True)
    ]
    assert np.median(gains) > 1
    others = data.eval_source.images[200:]
    integers = ranges.quantize(exact, ranges.observed(exact, chosen.calibration))
    expected, *got = (read(each)(others) for each in (exact, integers, file))
    assert np.ptp(expected) > 0.5, "a network that says nothing proves nothing"
    errors = [np.abs(each - expected).mean() for each in got]
    assert errors[1] < 0.8 * errors[0]
