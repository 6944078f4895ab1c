"""Models of every kind that predict takes, each as one function from images to probabilities."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.reading import one_line
from keras_preact.exporting.formats import preprocessing_record
from keras_preact.exporting.formats.tflite import LiteModel
from keras_preact.layers import Preprocessing
from keras_preact.models import preprocessing_of
from keras_preact.models.foreign import load_keras
from keras_preact.support.commands import door
from keras_preact.support.machine import cores
from keras_preact.support.paths import usable
from keras_preact.support.text import printable
from keras_preact.training import load_run

_SIGNATURE = "serving_default"
_RUN_RECORD, _GRAPH = "config.json", "saved_model.pb"
_HASHED_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model of any kind.

    Args:
        probabilities: from images, uint8 (batch, height, width, channels), to float32
            (batch, classes).
        preprocessing: how files become these images, and whether they may have several labels.
        class_names: by label.
        digest: tells the model from others, by its weights and preprocessing; computed when it
            is asked for, as it takes time.
        network: the Keras model; None of an export.
    """

    probabilities: Callable[[tf.Tensor], tf.Tensor | np.ndarray]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    digest: Callable[[], str]
    network: keras.Model | None = None


def load(
    model: keras.Model | os.PathLike | str,
    *,
    checkpoint: str = "newest",
    preprocessing: Preprocessing | None = None,
) -> Classifier:
    """Returns a model as a `Classifier`, which `predict` takes as often as you like.

    Args:
        model: a Keras model from normalized images to logits or, through a softmax, to
            probabilities (through a sigmoid where an image may have several labels); or the path
            of a run, of a .keras file, of the folder of a SavedModel's version, or of a .tflite
            file, the last two written by export.py.
        checkpoint: of a run: "newest" or "best".
        preprocessing: of a model that carries none.

    Raises:
        ValueError: if there is no such model, it is damaged, is none that classifies images, or
            carries no preprocessing while none is given, or the other way round.
    """
    if isinstance(model, keras.Model):
        own = preprocessing_of(model)
        return _of_keras(model, _chosen(own, preprocessing, "The model"))
    given = os.fspath(model)
    is_file = given.endswith((".keras", ".tflite"))
    path = usable(given, "model", wildcards=is_file)
    if is_file:
        if not path.is_file():
            raise ValueError(f"model must be a file that is there. Received: model={path}")
        read = _keras_file if given.endswith(".keras") else _tflite
        return read(path, preprocessing)
    if (path / _GRAPH).exists():
        return _saved_model(path, preprocessing)
    if (path / _RUN_RECORD).exists():
        network = load_run(os.fspath(path), checkpoint)
        return _of_keras(network, _chosen(network.preprocessing, preprocessing, path))
    raise ValueError(
        "model must be the folder of a run, net.keras, the folder of a SavedModel's version, such "
        f"as RUN/export/saved_model/1, or net.tflite. Received: model={path}, " + _why_none(path)
    )


def _why_none(path):
    if not path.exists():
        return "which is not there"
    if path.is_dir():
        return f"a folder without {_RUN_RECORD} and {_GRAPH}"
    return f"another file; weights of other formats go through {door()} convert"


def _chosen(own, given, where):
    """The preprocessing of a model: its own or the one given, of which there must be one."""
    if own is None and given is None:
        raise ValueError(
            f"{where} carries no preprocessing, so it is not known how images must be resized and "
            "normalized. Export the model again, or give the numbers of its training with "
            f"--preprocessing={preprocessing_record.FILE}"
        )
    if own is not None and given is not None:
        raise ValueError(f"preprocessing is for a model that carries none. {where} carries its own")
    return own or given


def _keras_file(path, given) -> Classifier:
    try:
        model = load_keras(os.fspath(path))
    except MemoryError:
        raise
    except Exception as error:
        # Keras raises errors of any kind here, from zipfile's to those of a layer's constructor.
        raise ValueError(f"model cannot be read. Received: {path}: {_reason(error)}") from error
    classifier = _of_keras(model, _chosen(preprocessing_of(model), given, path))
    return dataclasses.replace(classifier, digest=_digest_of([path], classifier.preprocessing))


def _of_keras(model, preprocessing) -> Classifier:
    classes = _check_keras(model, preprocessing)
    returns_logits = _returns_logits(model, preprocessing)

    @tf.function(input_signature=[tf.TensorSpec([None, *preprocessing.image_shape], tf.uint8)])
    def probabilities(images):
        output = tf.cast(model(preprocessing.normalize(images), training=False), tf.float32)
        return preprocessing.probabilities(output) if returns_logits else output

    def digest():
        found = hashlib.sha256(preprocessing_record.to_json(preprocessing))
        found.update(json.dumps(_architecture(model)).encode())
        for value in model.get_weights():
            found.update(f"{value.shape} {value.dtype}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        return found.hexdigest()

    names = _names(preprocessing, classes)
    return Classifier(probabilities, preprocessing, names, digest, model)


def _architecture(model):
    """The arguments of the builder, without the names that Keras numbers in each process."""
    arguments = getattr(model, "arguments", None) or {}
    return {
        name: value.get("class_name") if isinstance(value, dict) else value
        for name, value in arguments.items()
    }


def _check_keras(model, preprocessing):
    """Returns the number of classes of a model that takes such images."""
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    ranks = [len(tensor.shape) for tensor in (*inputs, *outputs)]
    if ranks != [4, 2]:
        raise ValueError(
            "model must take images (batch, height, width, channels) and return one number for "
            f"each class. Received: {model.name}, with inputs {[i.shape for i in inputs]} and "
            f"outputs {[o.shape for o in outputs]}"
        )
    _check_shape(inputs[0].shape[1:], preprocessing, model.name)
    return outputs[0].shape[-1]


def _check_shape(shape, preprocessing, where):
    wanted = preprocessing.image_shape
    if wanted[-1] not in (1, 3):
        raise ValueError(
            f"Image files have 1 or 3 channels. Received: {where}, for images {wanted}"
        )
    if any(side not in (None, -1, want) for side, want in zip(shape, wanted, strict=True)):
        raise ValueError(
            f"The preprocessing must make images of the model's size. Received: {where}, which "
            f"takes {tuple(shape)}, with preprocessing for {wanted}"
        )


def _returns_logits(model, preprocessing):
    last = model
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is keras.activations.linear and not isinstance(last, keras.layers.Softmax):
        return True
    if preprocessing.multi_label:
        name, ends_in_it = "sigmoid", activation is keras.activations.sigmoid
    else:
        name = "softmax"
        ends_in_it = (
            isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax
        )
    if not ends_in_it:
        raise ValueError(
            f"model must end in a linear layer, whose outputs are logits, or in a {name}. "
            f"Received: {model.name}, which ends in {last.name}, a {type(last).__name__}"
        )
    if preprocessing.temperature != 1:
        raise ValueError(
            "temperature is for models that return logits. Received: temperature="
            f"{preprocessing.temperature}, and {model.name}, which ends in a {name}"
        )
    return False


def _names(preprocessing, classes):
    names = preprocessing.class_names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(
            f"The preprocessing must name each class of the model. Received: {len(names)} names "
            f"for {classes} classes"
        )
    return names


def _saved_model(path, given) -> Classifier:
    own = preprocessing_record.of_saved_model(path)
    preprocessing = _chosen(own, given, path)
    try:
        loaded = tf.saved_model.load(os.fspath(path))
        signature = loaded.signatures[_SIGNATURE]
        shape = signature.structured_input_signature[1]["images"].shape
        classes = signature.structured_outputs["probabilities"].shape[-1]
    except MemoryError:
        raise
    except Exception as error:
        # TensorFlow raises errors of any kind here, from broken protocol buffers to missing files.
        raise _not_ours(path, error) from error
    _check_shape(shape[1:], preprocessing, path)

    def probabilities(images):
        # The variables live as long as `loaded`.
        return loaded.signatures[_SIGNATURE](images=images)["probabilities"]

    files = sorted(file for file in path.glob("variables/*") if file.is_file())
    digest = _digest_of([path / _GRAPH, *files], preprocessing)
    return Classifier(probabilities, preprocessing, _names(preprocessing, classes), digest)


def _tflite(path, given) -> Classifier:
    try:
        model = LiteModel(path, cores())
    except MemoryError:
        raise
    except Exception as error:
        raise _not_ours(path, error) from error
    preprocessing = _chosen(preprocessing_record.of_tflite(path), given, path)
    _check_shape(model.image_shape, preprocessing, path)
    names = _names(preprocessing, model.classes)
    digest = _digest_of([path], preprocessing)
    return Classifier(
        lambda images: model.predict(np.asarray(images)), preprocessing, names, digest
    )


def _not_ours(path, error):
    return ValueError(
        f"{path} is not a model that export.py wrote, or is damaged: {_reason(error)}"
    )


def _reason(error):
    if isinstance(error, KeyError):
        return f"it has no {printable(str(error))}"
    return printable(one_line(error)) or type(error).__name__


def _digest_of(paths, preprocessing):
    def digest():
        found = hashlib.sha256(preprocessing_record.to_json(preprocessing))
        for path in paths:
            with epath.Path(path).open("rb") as file:
                while block := file.read(_HASHED_BYTES):
                    found.update(block)
        return found.hexdigest()

    return digest
