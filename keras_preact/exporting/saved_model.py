"""A SavedModel that servers load as it is: raw images in, probabilities and names out."""

import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.data.augmentation import fit
from keras_preact.training.errors import RunError
from keras_preact.training.normalization import make_normalizer

TOP_CLASSES = 5
# Of a probability; float32 arithmetic in another order explains 1e-6.
TOLERANCE = 1e-4

TENSOR_SIGNATURES = {"serving_default": tf.uint8, "serving_float32": tf.float32}


class ParityError(RunError):
    """What has been written does not compute what the Keras model computes."""


def make_predictor(model: keras.Model, info: DatasetInfo) -> Callable[[tf.Tensor], dict]:
    """A function from images in 0 to 255 to what the model says of them.

    Args:
        model: float32, from normalized images to logits.
        info: of the data it was trained on.

    Returns:
        predict(images) -> `probabilities`, float32 (batch, classes), by label;
        `classes`, strings (batch, k), the names of the likeliest, best first; and
        `scores`, float32 (batch, k), their probabilities. k is 5, or all classes.
    """
    normalize = make_normalizer(info.mean, info.std)
    names = tf.constant(info.class_names)
    k = min(TOP_CLASSES, info.classes)

    def predict(images):
        probabilities = tf.nn.softmax(model(normalize(images), training=False))
        scores, labels = tf.math.top_k(probabilities, k)
        return {
            "probabilities": probabilities,
            "classes": tf.gather(names, labels),
            "scores": scores,
        }

    return predict


def make_bytes_predictor(predict: Callable, info: DatasetInfo) -> Callable[[tf.Tensor], dict]:
    """predict for encoded image files of any size, which it brings to size as evaluation does.

    Args:
        predict: from `make_predictor`.
        info: of the data the model was trained on.

    Returns:
        predict_bytes(image_bytes) -> what predict returns, for strings (batch,), each a
        JPEG, PNG, GIF or BMP file.
    """

    def predict_bytes(image_bytes):
        images = tf.map_fn(
            lambda encoded: fit(encoded, info.image_shape, info.margin),
            image_bytes,
            fn_output_signature=tf.TensorSpec(info.image_shape, tf.uint8),
        )
        return predict(images)

    return predict_bytes


def export(
    model: keras.Model, info: DatasetInfo, images: np.ndarray, folder: epath.PathLike
) -> tuple[epath.Path, float]:
    """Writes the next version of a SavedModel into a folder, once it has proven right.

    Three signatures return what `make_predictor` says: `serving_default` takes `images`
    (batch, height, width, channels), uint8; `serving_float32` the same as float32 in 0
    to 255; `serving_bytes` takes `image_bytes` (batch,), image files. A version is
    written beside the others under a name that servers ignore, loaded again, compared,
    and only then renamed.

    Args:
        model: float32, from normalized images to logits.
        info: of the data it was trained on.
        images: uint8 (count, height, width, channels) to compare on.
        folder: holds a folder for each version.

    Returns:
        The folder of the version, and the largest difference of a probability.

    Raises:
        ParityError: if a probability differs by more than `TOLERANCE`. Nothing is left.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".unfinished-{_next_version(folder)}"
    if temporary.exists():
        temporary.rmtree()
    try:
        _write(model, info, temporary)
        difference = _compare(model, info, images, temporary)
        # Asked for anew: another export may have finished meanwhile.
        version = folder / str(_next_version(folder))
        temporary.rename(version)
    finally:
        if temporary.exists():
            temporary.rmtree()
    return version, difference


def _next_version(folder):
    versions = [int(path.name) for path in folder.iterdir() if re.fullmatch(r"\d+", path.name)]
    return max(versions, default=0) + 1


def _write(model, info, folder):
    predict = make_predictor(model, info)
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, dtype in TENSOR_SIGNATURES.items():
        images = tf.TensorSpec([None, *info.image_shape], dtype, name="images")
        archive.add_endpoint(name, predict, input_signature=[images])
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    predict_bytes = make_bytes_predictor(predict, info)
    archive.add_endpoint("serving_bytes", predict_bytes, input_signature=[image_bytes])
    archive.write_out(str(folder), verbose=False)


def _compare(model, info, images, folder):
    expected = make_predictor(model, info)(tf.constant(images))["probabilities"]
    signatures = tf.saved_model.load(str(folder)).signatures
    files = tf.stack([tf.io.encode_png(image) for image in images])
    outputs = {
        name: signatures[name](images=tf.cast(images, dtype))
        for name, dtype in TENSOR_SIGNATURES.items()
    }
    if info.margin == 1:  # else a file of the final size is cropped, as in evaluation
        outputs["serving_bytes"] = signatures["serving_bytes"](image_bytes=files)
    worst = 0.0
    for name, output in outputs.items():
        difference = float(tf.reduce_max(tf.abs(output["probabilities"] - expected)))
        # Not the other way round: NaN must not pass.
        if not difference <= TOLERANCE:
            raise ParityError(
                f"{name} of the exported model differs from the Keras model by {difference:.2g} in "
                f"a probability; {TOLERANCE} is allowed. It has not been kept."
            )
        worst = max(worst, difference)
    return worst
