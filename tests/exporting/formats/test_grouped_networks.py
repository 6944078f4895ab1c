"""Networks with grouped and depthwise convolutions in every format that is exported."""

import functools

import keras
import numpy as np
import pytest
from residual_files import make_images, make_model, save
from resnext import ResNeXtUnit, of_keras
from tiny_nets import (
    FUSED_BN,
    SHAPE,
    PlainSession,
    assert_same,
    chain,
    export,
    keras_outputs,
    make_info,
    make_net,
    normalized_images,
    operations,
    probabilities,
    rewritten,
    run,
)

from keras_preact.exporting.formats import int8, saved_model, tflite
from keras_preact.exporting.graph import network, rewriting
from keras_preact.exporting.graph.scales import move_scales
from keras_preact.layers import BatchNormalization, Conv2D
from keras_preact.models.foreign.own import load_keras

INFO = make_info()
UNITS = {"ours": ResNeXtUnit, "keras": functools.partial(ResNeXtUnit, conv=of_keras)}
# Largest mean difference of a probability, over images and classes.
TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "dynamic": 0.01, "int8": 0.02}


def depthwise(filters, kernel_size, strides, groups, **options):
    """A depthwise convolution in place of the grouped one."""
    return keras.layers.DepthwiseConv2D(kernel_size, strides, "same", use_bias=False, **options)


UNITS["depthwise"] = functools.partial(ResNeXtUnit, conv=depthwise)
units = pytest.mark.parametrize("name", UNITS)


@functools.cache
def model_of(name):
    return make_model(unit=UNITS[name])


@units
def test_inner_bns_fold_and_no_function_is_left_to_compile(name):
    counts = operations(rewritten(model_of(name)))
    assert FUSED_BN not in counts and "PartitionedCall" not in counts
    grouped = "DepthwiseConv2dNative" if name == "depthwise" else "Conv2D"
    assert counts[grouped] >= 3
    # A scale stays at the entry of each unit and of the head.
    assert counts["Mul"] == 4


@pytest.mark.parametrize("freeze", [False, True])
@units
def test_saved_models_answer_as_keras_does(name, freeze, tmp_path):
    model, images = model_of(name), make_images(5)
    got = PlainSession(export(tmp_path / "1", model, INFO, freeze=freeze))
    expected = probabilities(model, images, INFO)
    assert np.ptp(expected, axis=0).max() > 0.05, "a network that says nothing proves nothing"
    answer = got("serving_default", images)["probabilities"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["ours", "depthwise"])
def test_saved_models_of_lower_precision_have_groups(name, precision):
    model, images = model_of(name), normalized_images()
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    lowered = saved_model.rewrite(graph, precision)[-1].graph
    expected = keras_outputs(model, images)["logits"]
    got = run(lowered, images)["logits"]
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@units
def test_tflite_files_of_every_kind_answer_as_keras_does(name, tmp_path):
    model, images = model_of(name), make_images(33)
    plain = save(tmp_path / "saved_model", model)
    expected = probabilities(model, images, INFO)
    for kind in tflite.KINDS:
        file = tflite.convert(plain, kind, make_images(50, seed=1))
        for batch in (slice(0, 32), slice(32, 33)):
            got = tflite.LiteModel(file).predict(images[batch])
            assert np.abs(got - expected[batch]).mean() <= TOLERANCES[kind], kind


def test_int8_files_with_float_additions_have_groups(tmp_path):
    exact = tflite.convert(save(tmp_path / "saved_model", model_of("ours")), "float32")
    images = int8.Images(make_images(20), make_images(40, seed=2))
    read = lambda file: tflite.LiteModel(file).predict  # noqa: E731
    file, report = int8.convert(exact, lambda: exact, read, images, "float")
    assert report.float_units == ["stage1_unit1", "stage2_unit1", "stage3_unit1"]
    expected, got = (read(each)(images.held_out) for each in (exact, file))
    assert np.abs(got - expected).mean() < TOLERANCES["int8"]


FOLDED = {
    "groups": lambda: chain(Conv2D(6, 3, groups=3), BatchNormalization()),
    "groups with strides": lambda: chain(Conv2D(6, 3, 2, groups=3), BatchNormalization()),
    "Keras' groups": lambda: chain(keras.layers.Conv2D(6, 3, groups=3), BatchNormalization()),
    "depthwise": lambda: chain(keras.layers.DepthwiseConv2D(3), BatchNormalization()),
    "depthwise with strides": lambda: chain(
        keras.layers.DepthwiseConv2D(3, 2, "same"), BatchNormalization()
    ),
    "several filters a channel": lambda: chain(
        keras.layers.DepthwiseConv2D(3, depth_multiplier=4),
        BatchNormalization(),
        keras.layers.Rescaling(0.5, 1.0),
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_follows_folds_into_kernels_of_few_channels(name):
    counts = operations(rewritten(make_net(FOLDED[name]())))
    assert counts.pop("Conv2D", 0) + counts.pop("DepthwiseConv2dNative", 0) == 1
    assert {"Pad": 0, **counts} == {
        "Pad": counts.get("Pad", 0),
        "BiasAdd": 2,
        "Mean": 1,
        "MatMul": 1,
    }


READERS = {
    "groups": lambda: Conv2D(12, 3, groups=3),
    "groups with strides": lambda: Conv2D(6, 3, 2, groups=3),
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
}


@pytest.mark.parametrize("name", READERS)
def test_scales_move_into_kernels_of_few_channels(name):
    model = make_net(chain(BatchNormalization(), keras.layers.ReLU(), READERS[name]()))
    for variable in model.variables:
        if variable.name == "gamma":
            variable.assign(np.array([0.5, 2.0, 3.0]))
    before = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    step = move_scales(before)
    assert step.description == "moved 1 scales through ReLUs into convolutions"
    images = normalized_images()
    assert_same(run(step.graph, images), keras_outputs(model, images))


def test_a_file_of_keras_grouped_layers_is_exported(tmp_path):
    model = make_net(keras.layers.Conv2D(6, 3, groups=3))
    model.save(tmp_path / "net.keras")
    loaded = load_keras(str(tmp_path / "net.keras"))
    graph, images = network.trace(loaded, SHAPE), normalized_images()
    assert_same(run(graph, images), keras_outputs(model, images))
