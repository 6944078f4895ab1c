"""Writes the files of an export, and makes each callable as a user would call it."""

import dataclasses

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.limits import JPEG
from keras_preact.exporting import export_folder
from keras_preact.exporting.checks.parity import Predict
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.formats import saved_model
from keras_preact.exporting.formats.tflite import LiteModel, convert
from keras_preact.exporting.formats.tflite_metadata import add_metadata
from keras_preact.exporting.graph import network
from keras_preact.exporting.serving import server_files, warmup
from keras_preact.exporting.source import Source
from keras_preact.support.console import say
from keras_preact.support.files import remove
from keras_preact.support.machine import cores
from keras_preact.training.distribution.distributed_input import naming_unreadable

_JPEG_QUALITY = 95
# Warm-up requests hold dozens of copies.
_LARGEST_EXAMPLE_BYTES = 500_000


@dataclasses.dataclass(frozen=True)
class Built:
    """A file, or a folder of files, of an export.

    Args:
        name: such as "tflite/int8".
        kind: by which its tolerance is chosen: "float32", "float16", "dynamic" or "int8".
        path: where it lies.
        predict: computes with it.
    """

    name: str
    kind: str
    path: epath.Path
    predict: Predict


def keras_predictor(source: Source) -> Predict:
    """What the Keras model itself says of images."""
    returns_logits = source.model.layers[-1].name == network.CLASSIFIER

    @tf.function(input_signature=[tf.TensorSpec([None, *source.data.info.image_shape], tf.uint8)])
    def predict(images):
        answer = source.model(source.data.info.normalize(images), training=False)
        return tf.nn.softmax(answer) if returns_logits else answer

    return lambda images: predict(images).numpy()


def write_saved_model(
    graph: network.InferenceGraph, source: Source, config: ExportConfig, folder: epath.Path
) -> tuple[Built, saved_model.SessionModel]:
    """Writes a version of a SavedModel."""
    options = {"freeze": config.freeze, "max_image_pixels": config.max_image_pixels}
    saved_model.write(graph, source.data.info, folder, **options)
    session = saved_model.SessionModel(folder)
    return Built(export_folder.SAVED_MODEL, "float32", folder, session.predict), session


def write_tflite(
    graph: network.InferenceGraph,
    source: Source,
    config: ExportConfig,
    folder: epath.Path,
) -> list[Built]:
    """Writes the TFLite files that are asked for."""
    if not config.tflite:
        return []
    info, built = source.data.info, []
    plain = folder / ".saved_model"
    folder.mkdir(parents=True)
    saved_model.write_for_tflite(graph, info, plain)
    calibration = _calibration_images(source, config)
    for kind in config.tflite:
        say(f"Converting to TFLite: {kind}")
        file = convert(plain, kind, calibration)
        described = add_metadata(
            file,
            name=source.model.name,
            description=f"{source.model.name}, {kind}, trained on {info.name}",
            class_names=info.class_names,
            mean=info.mean,
            std=info.std,
        )
        path = folder / f"{kind}.tflite"
        path.write_bytes(described)
        built.append(
            Built(f"{export_folder.TFLITE}/{kind}", kind, path, LiteModel(path, cores()).predict)
        )
    remove(plain)
    return built


def _calibration_images(source, config):
    """Training images as evaluation would see them."""
    if "int8" not in config.tflite:
        return np.zeros([0, *source.data.info.image_shape], np.uint8)
    data, count = source.data, min(config.calibration_images, source.data.info.train_count)
    with naming_unreadable(data, "train", lambda: data.train_indices(0, count)):
        [(images, _)] = data.train(count, augmentation="none").take(1).as_numpy_iterator()
    return images


def write_serving(
    source: Source, model_name: str, image: np.ndarray, folder: epath.Path, version: epath.Path
) -> None:
    """Writes what it takes to serve a version of the SavedModel, and its warm-up requests."""
    file = source.data.eval_file(0)
    if not file.startswith(JPEG) or len(file) > _LARGEST_EXAMPLE_BYTES:
        file = tf.io.encode_jpeg(image, quality=_JPEG_QUALITY).numpy()
    warmup.write(version, model_name, image, file)
    folder.mkdir()
    for name, contents in server_files.files(model_name, image, file).items():
        (folder / name).write_bytes(contents)
