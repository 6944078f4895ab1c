"""SavedModels in loaders that are not ours: a plain session and TensorFlow's own program."""

import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
from tiny_nets import (
    NAMES,
    SHAPE,
    PlainSession,
    export,
    images_of,
    make_info,
    make_net,
    make_resnet,
    probabilities,
)

from keras_preact.exporting.formats import saved_model
from keras_preact.exporting.graph import network, rewriting

INFO = make_info()
IMAGES = images_of(INFO)
ANSWER = {
    "probabilities": (tf.float32, [-1, 7]),
    "classes": (tf.string, [-1, 5]),
    "scores": (tf.float32, [-1, 5]),
}
SIGNATURES = {
    "serving_default": ("images", (tf.uint8, [-1, *SHAPE]), ANSWER),
    "serving_float32": ("images", (tf.float32, [-1, *SHAPE]), ANSWER),
    "serving_bytes": ("image_bytes", (tf.string, [-1]), {**ANSWER, "error": (tf.string, [-1])}),
    "features": ("images", (tf.uint8, [-1, *SHAPE]), {"features": (tf.float32, [-1, 64])}),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return make_resnet(shortcut="constant_scaling")


@pytest.fixture(scope="module")
def expected(model):
    answer = probabilities(model, IMAGES, INFO)
    assert np.ptp(answer, axis=0).max() > 0.1, "a network that says nothing proves nothing"
    return answer


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """Exports of the same network with variables and without."""
    root = tmp_path_factory.mktemp("saved_models")
    return {
        freeze: export(root / str(freeze), model, INFO, freeze=freeze) for freeze in (False, True)
    }


@pytest.fixture(scope="module")
def sessions(folders):
    return {freeze: PlainSession(folder) for freeze, folder in folders.items()}


def assert_answers(got, expected):
    order = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(got["scores"], np.take_along_axis(expected, order, 1), atol=1e-5)
    encoded = np.array([name.encode() for name in NAMES], object)
    np.testing.assert_array_equal(got["classes"], encoded[order])


def test_signatures_have_fixed_names_types_and_shapes_with_a_free_batch(sessions):
    def described(info):
        return tf.as_dtype(info.dtype), [dim.size for dim in info.tensor_shape.dim]

    for session in sessions.values():
        signatures = dict(session.loaded.signature_def)
        del signatures["__saved_model_init_op"]
        assert signatures.keys() == SIGNATURES.keys()
        for name, (given, taken, answered) in SIGNATURES.items():
            assert {k: described(v) for k, v in signatures[name].inputs.items()} == {given: taken}
            outputs = {k: described(v) for k, v in signatures[name].outputs.items()}
            assert outputs == answered


@pytest.mark.parametrize("freeze", [False, True])
def test_a_plain_session_computes_what_keras_does(sessions, expected, freeze):
    session = sessions[freeze]
    assert_answers(session("serving_default", IMAGES), expected)
    assert_answers(session("serving_float32", IMAGES.astype(np.float32)), expected)
    assert_answers(session("serving_default", IMAGES[1:2]), expected[1:2])


@pytest.mark.parametrize("freeze", [False, True])
def test_features_are_the_pooled_ones_that_the_classifier_reads(sessions, model, freeze):
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)
    normalized = ((IMAGES - np.array(INFO.mean)) / INFO.std).astype(np.float32)
    got = sessions[freeze]("features", IMAGES)["features"]
    np.testing.assert_allclose(got, pooled(normalized), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_an_empty_batch_is_refused_in_words_and_harms_none_that_follows(
    sessions, expected, signature
):
    empty = np.zeros([0], object) if signature == "serving_bytes" else IMAGES[:0]
    rule = "A batch must hold at least one image. Received: an empty batch"
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        sessions[False](signature, empty)
    assert_answers(sessions[False]("serving_default", IMAGES), expected)


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("serving_default", IMAGES[0]),
        ("serving_default", IMAGES[:, :, :-1]),
        ("serving_default", np.array(["text"])),
        ("serving_default", np.repeat(IMAGES, 2, axis=-1)),
        ("serving_bytes", np.array([["a", "b"]])),
        ("serving_bytes", "not a batch"),
    ],
)
def test_inputs_of_another_shape_or_type_are_refused(sessions, signature, value):
    with pytest.raises((ValueError, TypeError)):
        sessions[False](signature, value)


def test_tensorflows_own_program_computes_what_keras_does(folders, expected, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    subprocess.run(
        [
            *(sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"),
            *("--dir", folders[False], "--tag_set", "serve"),
            *("--signature_def", "serving_default"),
            *("--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path),
        ],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        check=True,
        timeout=300,
    )
    got = {name: np.load(tmp_path / f"{name}.npy", allow_pickle=True) for name in ANSWER}
    assert_answers(got, expected)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_copy_elsewhere_has_the_class_names_as_an_asset(folders, freeze, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders[freeze], copy)
    session = PlainSession(copy)
    [asset] = session.loaded.asset_file_def
    assert asset.filename == "class_names.txt"
    # The path from which the loaded graph reads the names.
    path = session.session.graph.get_tensor_by_name("Variable/Read/ReadVariableOp:0")
    assert session.session.run(path).decode() == str(copy / "assets" / "class_names.txt")
    lines = (copy / "assets" / "class_names.txt").read_text("utf-8").split("\n")
    assert lines == [*NAMES, ""]


def nodes_of(folder):
    """(name of the function, node) for all nodes of a SavedModel; "" for those of the graph."""
    contents = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    [meta_graph] = contents.meta_graphs
    for node in meta_graph.graph_def.node:
        yield None, node
    for function in meta_graph.graph_def.library.function:
        yield function.signature.name, function
        for node in function.node_def:
            yield function.signature.name, node


def of_kind(op, folder):
    return [node for _, node in nodes_of(folder) if getattr(node, "op", None) == op]


def holds_text(node):
    return node.attr["dtype"].type == tf.string.as_datatype_enum


TRAINING = r"PyFunc|Grad|Backprop|Random|Multinomial|Apply|Dropout|BatchNorm|Xla|Assign(Add|Sub)"


@pytest.mark.parametrize("freeze", [False, True])
def test_a_graph_holds_nothing_but_operations_of_inference_that_every_server_has(folders, freeze):
    for function, node in nodes_of(folders[freeze]):
        for attribute in ("_XlaMustCompile", "_XlaCompile"):
            assert attribute not in node.attr or not node.attr[attribute].b, (function, node)
        if isinstance(node, tf.compat.v1.NodeDef):
            assert op_def_registry.get(node.op) is not None, node.op
            assert not re.search(TRAINING, node.op), (function, node.op)
            # Outside of restoring weights, only the class names' path is kept in a variable.
            if node.op.startswith(("Assign", "Save", "Restore")) and not holds_text(node):
                assert re.search("_traced_(save|restore)", function), (function, node.op)


def test_weights_are_float32_variables_once_each(folders, model):
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    sizes = sorted(value.size for value in graph.weights.values())
    held = [node for node in of_kind("VarHandleOp", folders[False]) if not holds_text(node)]
    assert {node.attr["dtype"].type for node in held} == {tf.float32.as_datatype_enum}
    shapes = [[dim.size for dim in node.attr["shape"].shape.dim] for node in held]
    assert sorted(int(np.prod(shape)) for shape in shapes) == sizes
    data = sum(path.stat().st_size for path in (folders[False] / "variables").iterdir())
    assert 4 * sum(sizes) < data < 4 * sum(sizes) + 10_000


def test_frozen_weights_are_float32_constants_once_each(folders, model):
    assert all(map(holds_text, of_kind("VarHandleOp", folders[True])))
    parameters = sum(v.numpy().size for v in model.variables)
    assert (folders[True] / "saved_model.pb").stat().st_size < 4 * parameters + 200_000
    large = [
        node.attr["dtype"].type
        for node in of_kind("Const", folders[True])
        if node.attr["value"].ByteSize() > 1000
    ]
    assert set(large) == {tf.float32.as_datatype_enum}


def test_of_few_classes_all_are_named(tmp_path):
    info = make_info(class_names=("no", "yes"))
    images = keras.Input(SHAPE)
    x = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(2, name="logits")(x))
    got = PlainSession(export(tmp_path / "1", model, info))("serving_default", IMAGES)
    expected = probabilities(model, IMAGES, info)
    np.testing.assert_allclose(got["scores"], -np.sort(-expected, axis=1), atol=1e-6)
    assert [set(row) for row in got["classes"]] == [{b"no", b"yes"}] * 3


def test_layers_with_gradients_of_their_own_are_saved_without_them(tmp_path):
    # TensorFlow defines one for silu.
    model = make_net(keras.layers.Activation("silu"))
    folder = export(tmp_path / "1", model, INFO)
    expected = probabilities(model, IMAGES, INFO)
    got = PlainSession(folder)("serving_default", IMAGES)["probabilities"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    got = tf.saved_model.load(folder).signatures["serving_default"](images=tf.constant(IMAGES))
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    assert not [function for function, _ in nodes_of(folder) if "grad" in (function or "").lower()]


def test_a_saved_model_to_convert_has_probabilities_alone(model, expected, tmp_path):
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    saved_model.write_for_tflite(graph, INFO.preprocessing, tmp_path / "1")
    got = PlainSession(tmp_path / "1")("serving_default", IMAGES.astype(np.float32))
    assert got.keys() == {"probabilities"}
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    assert not of_kind("VarHandleOp", tmp_path / "1")
