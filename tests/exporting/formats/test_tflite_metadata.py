import importlib.util
import io
import json
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_preact.data import DatasetInfo
from keras_preact.exporting.formats.tflite_metadata import add_metadata

CLASS_NAMES = ("ant", "Käfer", "great white shark")


@pytest.fixture(scope="module")
def model():
    """A TFLite file from images (batch, 2, 2, 3) to probabilities of three classes."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3], name="images")])
    def predict(images):
        weights = tf.reshape(tf.linspace(-0.01, 0.02, 36), [12, 3])
        return tf.nn.softmax(tf.reshape(images, [-1, 12]) @ weights)

    concrete = predict.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def add(model, class_names=CLASS_NAMES, mean=(124.5, 110.25, 99.0), std=(62.5, 61.0, 60.125)):
    info = DatasetInfo("test", class_names, (2, 2, len(mean)), 1, 1, mean, std, resize_ratio=1.0)
    return add_metadata(model, "A net", "What it is for.", info.preprocessing)


def metadata(file):
    """The bytes of the metadata's own FlatBuffer."""
    model = schema.ModelT.InitFromPackedBuf(file)
    [entry] = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    return model.buffers[entry.buffer].data.tobytes()


def predict(file, images):
    interpreter = Interpreter(model_content=file)
    [source], [target] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])


@pytest.fixture(scope="module")
def reader():
    """MediaPipe's reader of metadata, without importing MediaPipe and its requirements."""
    found = importlib.util.find_spec("mediapipe")
    if found is None:
        pytest.skip("needs MediaPipe's files: pip install --no-deps mediapipe")
    [package] = found.submodule_search_locations
    path = pathlib.Path(package, "tasks/metadata/metadata_schema_py_generated.py")
    spec = importlib.util.spec_from_file_location("metadata_schema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_computes_the_same_with_metadata(model):
    images = np.random.default_rng(0).uniform(0, 255, (5, 2, 2, 3)).astype(np.float32)
    expected = predict(model, images)
    assert np.ptp(expected) > 0.1
    np.testing.assert_array_equal(predict(add(model), images), expected)


def test_class_names_and_preprocessing_are_files_in_an_archive_at_the_end(model):
    with zipfile.ZipFile(io.BytesIO(add(model))) as archive:
        entries = archive.infolist()
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().split("\n") == [*CLASS_NAMES, ""]
        preprocessing = json.loads(archive.read("preprocessing.json"))
    assert [entry.filename for entry in entries] == ["labels.txt", "preprocessing.json"]
    for entry in entries:
        assert entry.compress_type == zipfile.ZIP_STORED  # so that apps can map it into memory
        assert entry.external_attr >> 16 == 0o644  # else unzip makes a file that nobody may read
    assert preprocessing == {
        "image_shape": [2, 2, 3],
        "mean": [124.5, 110.25, 99.0],
        "std": [62.5, 61.0, 60.125],
        "resize_ratio": 1.0,
        "interpolation": "bilinear",
        "class_names": list(CLASS_NAMES),
        "multi_label": False,
        "temperature": 1.0,
    }


def test_metadata_is_a_flatbuffer_of_its_own_beside_what_was_there(model):
    before = {entry.name for entry in schema.ModelT.InitFromPackedBuf(model).metadata}
    file = add(model)
    after = {entry.name for entry in schema.ModelT.InitFromPackedBuf(file).metadata}
    assert after == before | {b"TFLITE_METADATA"}
    assert file[4:8] == b"TFL3"
    assert metadata(file)[4:8] == b"M001"


def test_equal_models_make_equal_files(model):
    assert add(model) == add(model)


def test_an_independent_reader_finds_all_that_was_said(model, reader):
    root = reader.ModelMetadataT.InitFromPackedBuf(metadata(add(model)))
    assert (root.name, root.description) == (b"A net", b"What it is for.")
    assert root.minParserVersion == b"1.0.0"
    [record] = root.associatedFiles
    assert record.name == b"preprocessing.json"
    [subgraph] = root.subgraphMetadata

    [images] = subgraph.inputTensorMetadata
    assert images.name == b"images"
    assert b"mean 124.5, 110.25, 99; std 62.5, 61, 60.125." in images.description
    assert images.content.contentPropertiesType == reader.ContentProperties.ImageProperties
    assert images.content.contentProperties.colorSpace == reader.ColorSpaceType.RGB
    assert [*images.stats.min, *images.stats.max] == [0, 255]
    [unit] = images.processUnits
    assert unit.optionsType == reader.ProcessUnitOptions.NormalizationOptions
    assert [*unit.options.mean, *unit.options.std] == [0, 1]

    [probabilities] = subgraph.outputTensorMetadata
    assert probabilities.name == b"probabilities"
    content = probabilities.content.contentPropertiesType
    assert content == reader.ContentProperties.FeatureProperties
    assert [*probabilities.stats.min, *probabilities.stats.max] == [0, 1]
    [labels] = probabilities.associatedFiles
    assert labels.name == b"labels.txt"
    assert labels.type == reader.AssociatedFileType.TENSOR_AXIS_LABELS


@pytest.mark.parametrize(("channels", "name"), [(1, "GRAYSCALE"), (3, "RGB"), (4, "UNKNOWN")])
def test_the_color_space_is_that_of_the_channels(model, reader, channels, name):
    file = add(model, mean=[0.0] * channels, std=[1.0] * channels)
    root = reader.ModelMetadataT.InitFromPackedBuf(metadata(file))
    [images] = root.subgraphMetadata[0].inputTensorMetadata
    assert images.content.contentProperties.colorSpace == getattr(reader.ColorSpaceType, name)


@pytest.mark.parametrize("name", ["ant\nbee", "ant\n", "ant\r", "", " "])
def test_a_name_that_is_no_line_is_refused(model, name):
    with pytest.raises(ValueError, match=r"name of a class .* line of labels\.txt"):
        add(model, class_names=("ant", name, "bee"))
