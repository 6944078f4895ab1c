"""What is exported: a trained model in float32, and the data it was trained on."""

import dataclasses

import keras

from keras_preact.data import Dataset
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.graph.network import CLASSIFIER
from keras_preact.support.paths import usable
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.config import TrainConfig
from keras_preact.training.run import load_data, restore_data, restore_model
from keras_preact.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Source:
    """What is exported.

    Args:
        model: float32, from normalized images to logits, or to probabilities through a
            last layer `predictions`.
        data: what it was trained on.
        description: where it comes from, for people.
    """

    model: keras.Model
    data: Dataset
    description: str


def check(config: ExportConfig) -> None:
    """Raises ValueError, before anything is read, if there is no run, checkpoint or file."""
    if config.run_dir:
        folder = RunFolder(config.run_dir)
        folder.read()
        checkpoint.find(folder.checkpoints, config.checkpoint, tell=lambda line: None)
    elif not (path := usable(config.model, "model")).is_file():
        raise ValueError(f"model must be a .keras file. Received: {path}, which is not there")


def read(config: ExportConfig) -> Source:
    """Reads a run, or a .keras file, and its data, under the dtype policy float32.

    Raises:
        ValueError: if there is no run, no checkpoint or no such file, it is not a classifier
            made by this package's builders, or the data are not those of the model.
    """
    # Whatever the precision was in training.
    keras.config.set_dtype_policy("float32")
    return _read_run(config) if config.run_dir else _read_file(config)


def _read_run(config):
    folder = RunFolder(config.run_dir)
    data = restore_data(folder, config.data_dir)
    # Now: a run that goes on may have deleted an earlier one meanwhile.
    path = checkpoint.find(folder.checkpoints, config.checkpoint, run=folder.recorded_id())
    return Source(restore_model(folder, path), data, f"step {step_of(path):,} of {folder}")


def _read_file(config):
    path = usable(config.model, "model")
    try:
        loaded = keras.models.load_model(str(path), compile=False)
    except Exception as error:
        # Of every kind, from zipfile's to those of a layer's constructor.
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
            "model must take images, (batch, height, width, channels), and end in a linear layer "
            f"named {CLASSIFIER}, and after it at most a softmax named predictions, as those of "
            f"keras_preact do. Received: {path}, which ends in {layers or 'nothing'}"
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
    except (AttributeError, TypeError, ValueError):  # also of a model that is not built
        return False
    if ranks != [4, 2]:
        return False
    ends = last is classifier or (
        last.name == "predictions"
        and getattr(last, "activation", None) is keras.activations.softmax
        and last.input is classifier.output
    )
    return ends and classifier.activation is keras.activations.linear


def _in_float32(model):
    """A copy whose layers compute in float32, whatever they were trained in."""

    def convert(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=convert, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
