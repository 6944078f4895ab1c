"""The model to export, in float32, and the data set it was trained on."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.data.limits import JPEG
from keras_preact.exporting.checks.parity import Predict
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.graph.network import CLASSIFIER
from keras_preact.support.paths import usable
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.run import load_data, restore_data, restore_model
from keras_preact.training.run_folder import RunFolder

_SOFTMAX = "predictions"
_JPEG_QUALITY = 95
# Warm-up requests hold dozens of copies.
_LARGEST_EXAMPLE_BYTES = 500_000


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model and its data.

    Args:
        model: float32, from normalized images to logits, or to probabilities through a
            last layer named `predictions`.
        data: the data set the model was trained on.
        description: the origin of the model, for people.
    """

    model: keras.Model
    data: Dataset
    description: str

    def predictor(self) -> Predict:
        """Returns the Keras model as a function from uint8 images to probabilities."""
        returns_logits = self.model.layers[-1].name == CLASSIFIER
        info = self.data.info

        @tf.function(input_signature=[tf.TensorSpec([None, *info.image_shape], tf.uint8)])
        def predict(images):
            output = self.model(info.normalize(images), training=False)
            return tf.nn.softmax(output) if returns_logits else output

        return lambda images: predict(images).numpy()

    def calibration_images(self, most: int) -> np.ndarray:
        """Returns training images as evaluation crops them, at most `most`.

        Raises:
            UnreadableError: if an image can no longer be read.
        """
        data, count = self.data, min(most, self.data.info.train_count)
        with naming_unreadable(data, "train", lambda: data.train_indices(0, count)):
            [(images, _)] = data.train(count, augmentation="none").take(1).as_numpy_iterator()
        return images

    def example(self) -> tuple[np.ndarray, bytes]:
        """Returns the first evaluation image, uint8 (height, width, channels), and a JPEG file.

        The file is the image's own where that is a JPEG of at most 500 kB.
        """
        [([image], _, _)] = self.data.eval(1, indices=np.array([0])).as_numpy_iterator()
        file = self.data.eval_file(0)
        if not file.startswith(JPEG) or len(file) > _LARGEST_EXAMPLE_BYTES:
            file = tf.io.encode_jpeg(image, quality=_JPEG_QUALITY).numpy()
        return image, file


def check(config: ExportConfig) -> None:
    """Raises ValueError if there is no run, checkpoint or file. Reads no weights and no data."""
    if config.run_dir:
        folder = RunFolder(config.run_dir)
        folder.read()
        checkpoint.find(folder.checkpoints, config.checkpoint, tell=lambda line: None)
    elif not (path := usable(config.model, "model")).is_file():
        raise ValueError(f"model must be a .keras file. Received: {path}, which is not there")


def read(config: ExportConfig) -> Source:
    """Reads a run or a .keras file, and its data, under the dtype policy float32.

    Raises:
        ValueError: if there is no run, checkpoint or file; if the file is not a classifier
            made by this package's builders; or if the data are not those of the model.
    """
    # The precision of training does not matter: weights are float32 in all of them.
    keras.config.set_dtype_policy("float32")
    return _read_run(config) if config.run_dir else _read_file(config)


def _read_run(config):
    folder = RunFolder(config.run_dir)
    data = restore_data(folder, config.data_dir)
    # Not before the data: a run in progress may meanwhile delete the checkpoint found.
    path = checkpoint.find(folder.checkpoints, config.checkpoint, run=folder.recorded_id())
    return Source(restore_model(folder, path), data, f"step {step_of(path):,} of {folder}")


def _read_file(config):
    path = usable(config.model, "model")
    try:
        loaded = keras.models.load_model(str(path), compile=False)
    except Exception as error:
        # Keras raises errors of any kind here, from zipfile's to those of a layer's constructor.
        raise ValueError(f"model cannot be read. Received: {path}: {error}") from error
    data = load_data(
        TrainConfig(dataset=config.dataset, data_dir=config.data_dir, image_size=config.image_size)
    )
    _check_classifier(loaded, data.info, path)
    return Source(_in_float32(loaded), data, str(path))


def _check_classifier(model, info, path):
    if not _is_classifier(model):
        layers = ", ".join(layer.name for layer in model.layers[-2:])
        raise ValueError(
            "model must take images (batch, height, width, channels) and end in a linear layer "
            f"named {CLASSIFIER}, which at most a softmax named {_SOFTMAX} follows, as the models "
            f"of keras_preact do. Received: {path}, which ends in {layers or 'nothing'}"
        )
    expected = (*info.image_shape, info.classes)
    received = (*model.input_shape[1:], model.output_shape[-1])
    if any(size not in (None, wanted) for size, wanted in zip(received, expected, strict=True)):
        raise ValueError(
            f"The data must fit the model, which takes images {received[:3]} and knows "
            f"{received[3]} classes. Received: {info.name}, with images {info.image_shape} and "
            f"{info.classes} classes"
        )


def _is_classifier(model):
    try:
        classifier, last = model.get_layer(CLASSIFIER), model.layers[-1]
        ranks = [len(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    except (AttributeError, TypeError, ValueError):  # also if the model is not built
        return False
    if ranks != [4, 2]:
        return False
    ends = last is classifier or (
        last.name == _SOFTMAX
        and getattr(last, "activation", None) is keras.activations.softmax
        and last.input is classifier.output
    )
    return ends and classifier.activation is keras.activations.linear


def _in_float32(model):
    """Returns a copy whose layers compute in float32."""

    def convert(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=convert, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
