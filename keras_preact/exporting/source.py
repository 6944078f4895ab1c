"""The model to export, in float32, and the data set it was trained on."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import Dataset, DatasetInfo, datasets
from keras_preact.data.embedded import photographs
from keras_preact.data.limits import JPEG
from keras_preact.data.sources import InMemory
from keras_preact.exporting.checks.parity import Predict, answers
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.graph.network import CLASSIFIER
from keras_preact.layers import Preprocessing
from keras_preact.models import Network, preprocessing_of
from keras_preact.models.foreign import load_keras
from keras_preact.support.paths import usable
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.run import restore_data, restore_model
from keras_preact.training.run_folder import RunFolder

_SOFTMAX = "predictions"
_JPEG_QUALITY = 95
# Warm-up requests hold dozens of copies.
_LARGEST_EXAMPLE_BYTES = 500_000
# Parts of photographs, where a model comes without data.
_COMPARED_PARTS, _CALIBRATION_PARTS = 128, 100


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model and its data.

    Args:
        model: float32, from normalized images to logits, or to probabilities through a
            last layer named `predictions`.
        data: the data set the model was trained on.
        description: the origin of the model, for people.
        is_labelled: whether the labels of the data are true, and not the model's own answers.
        temperature: divides the logits; see `Preprocessing`.
    """

    model: keras.Model
    data: Dataset
    description: str
    is_labelled: bool = True
    temperature: float = 1.0

    @property
    def preprocessing(self) -> Preprocessing:
        """From image files to the input of the model, and from its logits to probabilities."""
        return self.data.info.preprocessing.replace(temperature=self.temperature)

    def predictor(self) -> Predict:
        """Returns the Keras model as a function from uint8 images to probabilities."""
        return predictor(self.model, self.preprocessing)

    def calibration_images(self, most: int) -> np.ndarray:
        """Returns training images as evaluation crops them, at most `most`.

        Raises:
            UnreadableError: if an image can no longer be read.
        """
        data, count = self.data, min(most, self.data.info.train_count)
        with naming_unreadable(data, "train", lambda: data.train_indices(0, count)):
            [(images, *_)] = data.train(count, augmentation="none").take(1).as_numpy_iterator()
        return images

    def held_out_images(self, calibration: int, most: int) -> np.ndarray:
        """Returns training images as evaluation crops them, at most `most`.

        They are others than those of `calibration_images(calibration)`, if there are enough.

        Raises:
            UnreadableError: if an image can no longer be read.
        """
        data, count = self.data, min(most, self.data.info.train_count)
        # Batches of `count` images; the first ones calibrate.
        step = -(-calibration // count)
        with naming_unreadable(data, "train", lambda: data.train_indices(step, count)):
            batches = data.train(count, start_step=step, augmentation="none")
            [(images, *_)] = batches.take(1).as_numpy_iterator()
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


def predictor(model: keras.Model, preprocessing: Preprocessing) -> Predict:
    """Returns a classifier as a function from uint8 images to probabilities."""
    returns_logits = model.layers[-1].name == CLASSIFIER
    shape = [None, *preprocessing.image_shape]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def predict(images):
        output = model(preprocessing.normalize(images), training=False)
        if returns_logits:
            return preprocessing.probabilities(output)
        # The logarithms of probabilities are logits, too.
        is_plain = preprocessing.temperature == 1
        return output if is_plain else preprocessing.probabilities(tf.math.log(output))

    return lambda images: predict(images).numpy()


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
    found = _read_run(config) if config.run_dir else _read_file(config)
    if config.temperature is not None:
        found = dataclasses.replace(found, temperature=config.temperature)
    # The files of weights carry it.
    found.model.preprocessing = found.preprocessing
    return found


def _read_run(config):
    folder = RunFolder(config.run_dir)
    data = restore_data(folder, config.data_dir)
    # Not before the data: a run in progress may meanwhile delete the checkpoint found.
    path = checkpoint.find(folder.checkpoints, config.checkpoint, run=folder.recorded_id())
    return Source(restore_model(folder, path), data, f"step {step_of(path):,} of {folder}")


def _read_file(config):
    path = usable(config.model, "model")
    try:
        loaded = load_keras(str(path))
    except Exception as error:
        # Keras raises errors of any kind here, from zipfile's to those of a layer's constructor.
        raise ValueError(f"model cannot be read. Received: {path}: {error}") from error
    _check_is_classifier(loaded, path)
    model, like = _in_float32(loaded), preprocessing_of(loaded)
    if config.dataset:
        data = _labelled_data(config, like)
        _check_fits(model, data.info, like, path)
        return Source(model, data, str(path), temperature=like.temperature if like else 1.0)
    if like is None:
        raise ValueError(
            "model needs dataset, what it was trained on, unless the file says how images become "
            "its input, as files of export.py and convert do. Received: "
            f"{path}, which does not, and dataset=None"
        )
    data = _photographs(model, like)
    return Source(model, data, str(path), is_labelled=False, temperature=like.temperature)


def _labelled_data(config, like):
    size = config.image_size
    if size is None and like and config.dataset in ("folder", "csv"):
        size = max(like.image_shape[:2])
    return datasets.load(config.dataset, data_dir=config.data_dir, image_size=size, like=like)


def _photographs(model, like):
    """Images without labels: the answers of the model take their place."""
    classes = model.output_shape[-1]
    names = like.class_names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(
            f"The record of a model must name its {classes} classes or none. "
            f"Received: {len(names)} names"
        )
    answer = predictor(model, like)

    def source(count, seed):
        images = photographs(like.image_shape, count, seed)
        found = np.concatenate([answer(part) for part in np.array_split(images, 8)])
        labels = answers(found, like.multi_label)
        return InMemory(images, labels.astype(np.float32 if like.multi_label else np.int32))

    train, evaluation = source(_CALIBRATION_PARTS, seed=1), source(_COMPARED_PARTS, seed=0)
    facts = dataclasses.asdict(like.replace(class_names=names))
    del facts["temperature"]
    counts = {"train_count": len(train), "eval_count": len(evaluation)}
    info = DatasetInfo(name="parts of two photographs", **counts, **facts)
    return Dataset(info, train, evaluation, "none")


def _check_is_classifier(model, path):
    if not _is_classifier(model):
        layers = ", ".join(layer.name for layer in model.layers[-2:])
        raise ValueError(
            "model must take images (batch, height, width, channels) and end in a linear layer "
            f"named {CLASSIFIER}, which at most a softmax named {_SOFTMAX} follows, as the models "
            f"of keras_preact do. Received: {path}, which ends in {layers or 'nothing'}"
        )


def _check_fits(model, info, like, path):
    expected = (*info.image_shape, info.classes)
    received = (*model.input_shape[1:], model.output_shape[-1])
    if any(size not in (None, wanted) for size, wanted in zip(received, expected, strict=True)):
        raise ValueError(
            f"The data must fit the model, which takes images {received[:3]} and knows "
            f"{received[3]} classes. Received: {info.name}, with images {info.image_shape} and "
            f"{info.classes} classes"
        )
    if like and like.class_names not in ((), info.class_names):
        raise ValueError(
            f"The classes of the data must be those of the model, {_few(like.class_names)}. "
            f"Received: {info.name}, of {_few(info.class_names)}"
        )


def _few(names):
    return ", ".join(names[:5]) + (" and so on" if len(names) > 5 else "")


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
    # A clone has no records, and files of earlier versions are of another class.
    records = {"arguments": getattr(model, "arguments", None)}
    return Network(copy.input, copy.output, name=model.name, **records)
