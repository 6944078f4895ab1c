import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from etils import epath
from tiny_nets import Function, make_info, make_net

import keras_preact
from keras_preact.data import datasets
from keras_preact.exporting.formats import tflite
from keras_preact.exporting.formats.int8 import Images
from keras_preact.exporting.graph import network
from keras_preact.layers import BLOCKS, ORDERS, SHORTCUTS
from keras_preact.support.errors import RunError

SHAPE, CLASSES = (9, 8, 3), 7
MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
DEPTHS = {"single": 5, "basic": 8, "bottleneck": 11}

# Largest mean difference of a probability, over images and classes.
TOLERANCES = {"float32": 1e-6, "float16": 5e-4, "dynamic": 0.01, "int8": 0.03}


def make_images(count, seed=0):
    """Smooth images, as photographs are, each of other colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 256, (count, 3, 4, 3))
    noise = rng.uniform(-20, 20, (count, *SHAPE))
    return np.clip(coarse.repeat(3, 1).repeat(2, 2) + noise, 0, 255).astype(np.uint8)


def make_model(depth=8, **options):
    """A network whose moving statistics are those of its activations, as after training."""
    model = keras_preact.ResNetV2(depth, input_shape=SHAPE, classes=CLASSES, **options)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.name == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name == "beta":
            variable.assign(rng.uniform(-0.5, 0.5, variable.shape))
        elif variable.path.startswith("logits"):
            variable.assign(5 * variable.value)
    images = ((make_images(64, seed=1) - MEAN) / STD).astype(np.float32)
    update = tf.function(lambda: model(images, training=True))
    for _ in range(30):
        update()
    return model


def expected_probabilities(model, images, mean=MEAN, std=STD):
    """Keras' own predict, with normalization and softmax in NumPy."""
    normalized = (images.astype(np.float64) - mean) / std
    logits = model.predict(normalized.astype(np.float32), verbose=0).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def save(folder, compute, shape=SHAPE):
    """Writes a SavedModel without variables, and returns its folder."""
    images = tf.TensorSpec([None, *shape], tf.float32, name="images")
    signature = tf.function(lambda images: {"probabilities": compute(images)}, [images])
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": signature})
    return folder


def save_model(folder, model, mean=MEAN, std=STD):
    trainable = [variable.numpy() for variable in model.trainable_variables]
    others = [variable.numpy() for variable in model.non_trainable_variables]

    def compute(images):
        # Constants must be made in the graph to become part of it.
        weights = [[tf.constant(value) for value in values] for values in (trainable, others)]
        logits, _ = model.stateless_call(
            *weights, (images - tf.constant(mean)) / tf.constant(std), training=False
        )
        return tf.nn.softmax(logits)

    return save(folder, compute, model.input_shape[1:])


def convert(saved_model, kind, path):
    path.write_bytes(tflite.convert(saved_model, kind, make_images(50, seed=1)))
    return path


def assert_close(got, expected, kind):
    assert got.dtype == np.float32
    assert np.ptp(expected) > 0.1, "a network that says nothing proves nothing"
    assert np.abs(got - expected).mean() <= TOLERANCES[kind]


def read(path):
    return schema.ModelT.InitFromPackedBuf(path.read_bytes())


def assert_built_in(path):
    codes = {code.builtinCode for code in read(path).operatorCodes}
    assert schema.BuiltinOperator.CUSTOM not in codes


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return make_model()


@pytest.fixture(scope="module")
def saved_model(model, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("saved_model"), model)


@pytest.fixture(scope="module")
def files(saved_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    return {kind: convert(saved_model, kind, folder / kind) for kind in tflite.KINDS}


@pytest.mark.parametrize("kind", tflite.KINDS)
def test_every_kind_computes_what_keras_does_at_any_batch_size(files, model, kind):
    images = make_images(33)
    expected = expected_probabilities(model, images)
    lite = tflite.LiteModel(files[kind])
    for batch in (slice(0, 32), slice(32, 33), slice(0, 32)):
        assert_close(lite.predict(images[batch]), expected[batch], kind)


@pytest.mark.parametrize("kind", tflite.KINDS)
def test_the_signature_is_that_of_the_saved_model(files, kind):
    interpreter = Interpreter(str(files[kind]))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["probabilities"]}
    }
    [images], [probabilities] = interpreter.get_input_details(), interpreter.get_output_details()
    assert list(images["shape_signature"]) == [-1, *SHAPE]
    assert list(probabilities["shape_signature"]) == [-1, CLASSES]
    expected = np.uint8 if kind == "int8" else np.float32
    assert images["dtype"] == probabilities["dtype"] == expected


def test_an_int8_file_takes_the_bytes_of_an_image(saved_model, tmp_path):
    narrow = make_images(5) // 4 + 90
    (tmp_path / "int8").write_bytes(tflite.convert(saved_model, "int8", narrow))
    interpreter = Interpreter(str(tmp_path / "int8"))
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
    assert interpreter.get_output_details()[0]["quantization"] == (1 / 256, 0)
    np.testing.assert_array_equal(narrow, make_images(5) // 4 + 90)


def test_an_int8_file_has_integers_alone_and_a_scale_for_each_output_channel(files):
    model = read(files["int8"])
    [graph] = model.subgraphs
    integers = {getattr(schema.TensorType, name) for name in ("INT8", "UINT8", "INT32")}
    assert {tensor.type for tensor in graph.tensors} <= integers
    convolutions = [
        graph.tensors[operator.inputs[1]]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    ]
    assert len(convolutions) == 7
    for weights in convolutions:
        assert len(weights.quantization.scale) == weights.shape[0]


@pytest.mark.parametrize("kind", tflite.KINDS)
def test_files_have_built_in_operations_alone(files, kind):
    assert_built_in(files[kind])


def test_weights_take_the_space_that_their_kind_promises(files):
    size = {kind: path.stat().st_size for kind, path in files.items()}
    assert size["float16"] < 0.6 * size["float32"]
    assert max(size["dynamic"], size["int8"]) < 0.4 * size["float32"]


def test_probabilities_outlive_the_next_prediction(files):
    lite = tflite.LiteModel(files["float32"])
    first = lite.predict(make_images(2))
    copy = first.copy()
    assert not np.array_equal(lite.predict(255 - make_images(2)), copy)
    np.testing.assert_array_equal(first, copy)


def test_conversion_does_not_warn(saved_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tflite.convert(saved_model, "int8", make_images(2))


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_an_operation_that_tflite_lacks_is_named(tmp_path, kind):
    folder = save(tmp_path / "saved_model", lambda x: tf.reduce_mean(tf.math.erfinv(x), [1, 2]))
    with pytest.raises(RunError, match=r"no built-in operation for Erfinv\.$"):
        tflite.convert(folder, kind, make_images(2))


def test_an_operation_that_has_no_int8_is_named(tmp_path):
    folder = save(tmp_path / "saved_model", lambda x: tf.reduce_mean(tf.nn.elu(x), [1, 2]))
    assert tflite.convert(folder, "dynamic", make_images(2))
    with pytest.raises(RunError, match=r"cannot compute in int8: ELU\.$"):
        tflite.convert(folder, "int8", make_images(2))


def test_a_kind_that_cannot_be_made_does_not_keep_the_others_away(tmp_path):
    graph = network.trace(make_net(Function(tf.nn.elu)), SHAPE)
    info, folder = make_info(), epath.Path(tmp_path / "tflite")
    black = np.zeros((1, *SHAPE), np.uint8)
    images = Images(black, black)
    written = tflite.write(graph, info.preprocessing, folder, "net", ("int8", "float32"), images)
    assert written.impossible == {"int8": "TFLite cannot compute in int8: ELU."}
    assert [path.name for path in folder.iterdir()] == ["float32.tflite"]
    one = epath.Path(tmp_path / "one")
    written = tflite.write(graph, info.preprocessing, one, "net", ("float32",))
    assert (written.impossible, written.int8) == ({}, None)


def test_an_unknown_kind_is_refused(saved_model):
    with pytest.raises(ValueError, match="kind must be one of float32, float16, dynamic, int8"):
        tflite.convert(saved_model, "int4", make_images(2))


def check_variant(folder, kinds, **options):
    model, images = make_model(**options), make_images(32)
    expected = expected_probabilities(model, images)
    saved_model = save_model(folder / "saved_model", model)
    for kind in kinds:
        path = convert(saved_model, kind, folder / kind)
        assert_built_in(path)
        assert_close(tflite.LiteModel(path).predict(images), expected, kind)


def test_another_network_converts_too(tmp_path):
    options = {"unit": "original", "shortcut": "exclusive_gating", "block": "bottleneck"}
    check_variant(tmp_path, ["float32", "int8"], depth=11, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "shortcut", "block"), [*itertools.product(ORDERS, SHORTCUTS, BLOCKS)]
)
def test_every_unit_shortcut_and_block_converts(tmp_path, unit, shortcut, block):
    options = {"unit": unit, "shortcut": shortcut, "block": block}
    check_variant(tmp_path, tflite.KINDS, depth=DEPTHS[block], **options)


@pytest.mark.slow
def test_the_imagenet_stem_converts(tmp_path):
    check_variant(tmp_path, tflite.KINDS, depth=18, stem="imagenet")


@pytest.mark.slow
def test_a_trained_network_loses_at_most_a_point_of_accuracy(tmp_path):
    data = datasets.load("digits")
    train, evaluation = data.train_source, data.eval_source
    mean, std = data.info.mean, data.info.std
    model = keras_preact.ResNetV2(20, input_shape=data.info.image_shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 150)), loss)
    normalized = ((train.images - mean) / std).astype(np.float32)
    model.fit(normalized, train.labels, batch_size=96, epochs=10, verbose=0)
    keras_labels = expected_probabilities(model, evaluation.images, mean, std).argmax(axis=1)
    expected = np.mean(keras_labels == evaluation.labels)
    assert expected > 0.9
    saved_model = save_model(tmp_path / "saved_model", model, mean, std)
    for kind in tflite.KINDS:
        path = tmp_path / kind
        path.write_bytes(tflite.convert(saved_model, kind, train.images[:300]))
        labels = tflite.LiteModel(path).predict(evaluation.images).argmax(axis=1)
        assert np.mean(labels == evaluation.labels) >= expected - 0.01, kind
