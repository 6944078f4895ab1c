"""The models of an evaluation: of any kind, at their own size or at another."""

import dataclasses
import os

import keras
from etils import epath

from keras_preact.data.reading import one_line
from keras_preact.evaluation.config import EvaluateConfig
from keras_preact.exporting.formats import preprocessing_record
from keras_preact.layers import Preprocessing
from keras_preact.prediction import loading
from keras_preact.prediction.loading import Classifier
from keras_preact.support.text import printable
from keras_preact.training.config import TrainConfig
from keras_preact.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Args:
        name: its path, or the name of a Keras model.
        classifier: from images to probabilities.
        run: configuration of the run it comes from; None of a file.
    """

    name: str
    classifier: Classifier
    run: TrainConfig | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        return self.classifier.preprocessing

    @property
    def network(self) -> keras.Model | None:
        """The Keras model; None of an export."""
        return self.classifier.network

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classifier.class_names

    @property
    def has_names(self) -> bool:
        """Whether the model knows the names of its classes, not only their number."""
        return bool(self.preprocessing.class_names)


def name_of(model: keras.Model | Classifier | os.PathLike | str) -> str:
    """Returns the path of a model, or its name."""
    if isinstance(model, Classifier):
        return "classifier" if model.network is None else model.network.name
    return model.name if isinstance(model, keras.Model) else os.fspath(model)


def load(model: keras.Model | Classifier | os.PathLike | str, config: EvaluateConfig) -> Model:
    """Loads a model and brings it to the size that the flags ask for.

    Args:
        model: as `prediction.load` takes it, or what that has made of it.
        config: of the evaluation.

    Raises:
        ValueError: if the model cannot be used, or cannot take images of that size.
    """
    name = name_of(model)
    if isinstance(model, Classifier):
        return Model(name, at_size(model, config, name))
    given = config.preprocessing and preprocessing_record.read(config.preprocessing)
    classifier = loading.load(model, checkpoint=config.checkpoint, preprocessing=given or None)
    run = None if isinstance(model, keras.Model) else _run_of(name)
    return Model(name, at_size(classifier, config, name), run)


def at_size(classifier: Classifier, config: EvaluateConfig, name: str) -> Classifier:
    """Returns the classifier for images of config.image_size, config.resize and config.crops.

    Raises:
        ValueError: if the model takes images of one size alone.
    """
    before = classifier.preprocessing
    own, size = before.image_shape, config.image_size
    shape = own if size is None else (size, size, own[-1])
    preprocessing = before.replace(image_shape=shape, resize_ratio=_ratio(before, shape, config))
    if shape == own:
        # Pixels are normalized as before.
        return dataclasses.replace(classifier, preprocessing=preprocessing)
    rule = "image_size needs a Keras model, a run or a .keras file, that takes images of any size."
    if classifier.network is None:
        raise ValueError(
            f"{rule} Received: {name}, an export for images of {own[0]} x {own[1]}, and "
            f"image_size={size}"
        )
    try:
        resized = _resized(classifier.network, shape)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{rule} Received: {name}, whose layers fit {own[0]} x {own[1]} alone: "
            f"{printable(one_line(error))}"
        ) from error
    found = loading.load(resized, preprocessing=preprocessing)
    return dataclasses.replace(found, digest=classifier.digest)


def _ratio(before, shape, config):
    if config.resize is not None:
        least = min(shape[:2])
        if config.resize < least:
            raise ValueError(
                f"resize must be at least the size of the crop, {least}. "
                f"Received: resize={config.resize}"
            )
        return config.resize / least
    if config.image_size is not None and shape != before.image_shape and config.crops == 1:
        return 1.0
    return before.resize_ratio


def _resized(model, shape):
    """The model for images of another shape, on the same layers and variables."""
    resized = keras.models.clone_model(
        model, input_tensors=keras.Input(shape), clone_function=lambda layer: layer
    )
    # The caller gives the preprocessing.
    if hasattr(resized, "preprocessing"):
        resized.preprocessing = None
    return resized


def _run_of(name):
    path = epath.Path(os.path.expanduser(name))
    if name.endswith((".keras", ".tflite")) or (path / "saved_model.pb").exists():
        return None
    return RunFolder(path).read()[0]
