"""Answers of a model for image files, in their order; `predict` is the function for Python."""

import bisect
import dataclasses
import operator
import os
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_preact.layers import Preprocessing
from keras_preact.prediction import loading, sources
from keras_preact.prediction.config import BATCH_SIZE, TOP_K
from keras_preact.prediction.loading import Classifier
from keras_preact.prediction.pipeline import batches, center_crop, contents_of
from keras_preact.prediction.sources import Files
from keras_preact.support.errors import RunError
from keras_preact.support.text import printable


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one image file.

    Args:
        file: its path, as it was given.
        classes: names of the likeliest classes, the likeliest first; none with an error, or where
            all are below the threshold.
        scores: their probabilities.
        error: why the file could not be read as an image; None if it could.
    """

    file: str
    classes: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    error: str | None = None


def predict(
    model: keras.Model | Classifier | os.PathLike | str,
    paths: Iterable[os.PathLike | str] | os.PathLike | str,
    top_k: int = TOP_K,
    batch_size: int = BATCH_SIZE,
    *,
    checkpoint: str = "newest",
    preprocessing: Preprocessing | None = None,
    threshold: float = 0.0,
) -> list[Prediction]:
    """Returns the likeliest classes of image files, with the preprocessing of evaluation.

    Args:
        model: a Keras model from normalized images to logits or probabilities; the path of a run,
            of a .keras file, of the folder of a SavedModel's version or of a .tflite file; or
            what `prediction.load` has made of one of them, which is then not loaded again.
        paths: of image files, or one path: an image, a folder or a list, as for --source.
        top_k: classes of each image.
        batch_size: images computed at a time.
        checkpoint: of a run: "newest" or "best".
        preprocessing: of a model that carries none.
        threshold: least probability of a class; those below it are left out.

    Returns:
        A `Prediction` for each file, in order. A file that cannot be read has an error in it.

    Raises:
        ValueError: if the model cannot be used, or a source holds no images.
    """
    options = {"checkpoint": checkpoint, "preprocessing": preprocessing}
    found = predictions(model, paths, top_k, batch_size, threshold=threshold, **options)
    return list(found)


def predictions(
    model: keras.Model | Classifier | os.PathLike | str,
    paths: Iterable[os.PathLike | str] | os.PathLike | str,
    top_k: int = TOP_K,
    batch_size: int = BATCH_SIZE,
    *,
    checkpoint: str = "newest",
    preprocessing: Preprocessing | None = None,
    threshold: float = 0.0,
) -> Iterator[Prediction]:
    """Does the same as `predict`, and yields each prediction once its batch is computed."""
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1. Received: threshold={threshold}")
    one = isinstance(paths, str | os.PathLike)
    files = sources.find(paths) if one else sources.named(list(paths))
    if not isinstance(model, Classifier):
        model = loading.load(model, checkpoint=checkpoint, preprocessing=preprocessing)
    choice = Choice(top_k, threshold)
    answers = answer(model, files, range(len(files)), choice, batch_size)
    return (prediction for some in answers for prediction in some)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The classes that a prediction names.

    Args:
        top_k: of each image, the likeliest; all, if there are fewer.
        threshold: least probability.
    """

    top_k: int
    threshold: float = 0.0


def answer(
    classifier: Classifier, files: Files, part: range, choice: Choice, batch_size: int
) -> Iterator[Sequence[Prediction]]:
    """Yields the predictions of a part of a list, one batch after the other.

    Args:
        classifier: of images.
        files: the whole list.
        part: the indices to predict, consecutive.
        choice: of classes.
        batch_size: images computed at a time.

    Raises:
        RunError: if a probability is not finite.
    """
    names, count = classifier.class_names, min(choice.top_k, len(classifier.class_names))
    reader, size = center_crop(classifier.preprocessing), min(batch_size, len(files))
    for batch in batches(len(files), part, size, reader, contents_of(files)):
        probabilities = np.asarray(classifier.probabilities(tf.constant(batch.images)))
        finite = np.isfinite(probabilities).all(axis=1)
        scores, labels = (each.numpy().tolist() for each in tf.math.top_k(probabilities, count))
        rows = []
        for index in batch.own:
            file, place = files.names[index], index - batch.first
            if batch.problems and index in batch.problems:
                rows.append(Prediction(file, error=batch.problems[index]))
                continue
            if not finite[place]:
                raise RunError(
                    f"The model computes a probability that is not finite for {printable(file)}: "
                    "its weights are damaged or its training diverged"
                )
            kept = bisect.bisect_right(scores[place], -choice.threshold, key=operator.neg)
            classes = tuple([names[label] for label in labels[place][:kept]])
            rows.append(Prediction(file, classes, tuple(scores[place][:kept])))
        yield rows
