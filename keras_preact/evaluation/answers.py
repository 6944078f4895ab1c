"""The answers of a model for labelled images: probabilities as one array."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.data import limits
from keras_preact.evaluation import images as image_sets
from keras_preact.evaluation import metrics, multi_label
from keras_preact.evaluation.images import Images
from keras_preact.evaluation.models import Model
from keras_preact.prediction.pipeline import Batch, batches, center_crop, ten_crops
from keras_preact.support import console
from keras_preact.support.errors import RunError
from keras_preact.support.text import printable

Answers = metrics.Answers | multi_label.Answers


@dataclasses.dataclass(frozen=True)
class Answered:
    """The answers of a model, for the images that can be read.

    Args:
        answers: of these images, in order.
        indices: of these images in the data, int64 (images,).
        problems: why others cannot be read, by their index.
    """

    answers: Answers
    indices: np.ndarray
    problems: dict[int, str]

    def restricted(self, indices: np.ndarray) -> "Answered":
        """Returns the answers for some of the images, given by their ascending indices."""
        places = np.searchsorted(self.indices, indices)
        answers = dataclasses.replace(
            self.answers,
            probabilities=self.answers.probabilities[places],
            labels=self.answers.labels[places],
        )
        return dataclasses.replace(self, answers=answers, indices=indices)


def answer(model: Model, images: Images, batch_size: int, crops: int = 1) -> Answered:
    """Computes the probabilities of all images.

    Args:
        model: to evaluate.
        images: labelled.
        batch_size: crops computed at a time.
        crops: 1 or 10, whose probabilities are averaged.

    Raises:
        ValueError: if the data do not fit the model, or no image can be read.
        RunError: if a probability is not finite.
    """
    places = image_sets.match(images, model)
    several = model.preprocessing.multi_label
    if images.multi_label and not several:
        raise ValueError(
            "Images of several classes need a model that gives each class a probability of its "
            f"own. Received: {model.name}, whose probabilities add up to 1"
        )
    classes, size = len(model.class_names), max(1, batch_size // crops)
    probabilities = np.zeros((images.count, classes), np.float32)
    labels = np.zeros((images.count, classes) if several else images.count, np.float32)
    labels = labels if several else labels.astype(np.int32)
    problems: dict[int, str] = {}
    with console.counting(f"Evaluating {model.name}", images.count) as advance:
        for batch in _batches(images, model, min(size, images.count), crops):
            found = _probabilities(model, batch.images, crops)
            own = slice(batch.own.start, batch.own.stop)
            probabilities[own] = found[: len(batch.own)]
            problems |= batch.problems
            for index in batch.own:
                if index in batch.problems:
                    continue
                if several:
                    labels[index] = _row(images.label(index), places, classes)
                else:
                    labels[index] = places[images.label(index)]
            advance(len(batch.own))
    good = np.setdiff1d(np.arange(images.count), list(problems))
    if not len(good):
        why = next(iter(problems.values()), "there are none")
        raise ValueError(f"At least one image must be readable. Received: none, the first: {why}")
    _check_finite(probabilities, good, images)
    if len(good) < images.count:
        probabilities, labels = probabilities[good], labels[good]
    if several:
        columns = np.sort(places)
        names = tuple(model.class_names[place] for place in columns)
        answers = multi_label.Answers(probabilities[:, columns], labels[:, columns], names)
        return Answered(answers, good, problems)
    return Answered(metrics.Answers(probabilities, labels, model.class_names), good, problems)


def pixels(model: Model, images: Images, indices: np.ndarray) -> np.ndarray:
    """Returns images as the model sees their centre, uint8 (count, height, width, channels)."""
    own = Images(
        images.description,
        images.class_names,
        len(indices),
        name=lambda place: images.name(int(indices[place])),
        contents=lambda place: images.contents(int(indices[place])),
        label=lambda place: images.label(int(indices[place])),
        pixels=None if images.pixels is None else images.pixels[indices],
    )
    size = max(1, min(len(indices), 16))
    parts = [batch.images for batch in _batches(own, model, size, crops=1)]
    return np.concatenate(parts) if parts else np.zeros((0, *model.preprocessing.image_shape))


def _batches(images, model, size, crops) -> Iterator[Batch]:
    preprocessing, every = model.preprocessing, range(images.count)
    covered = limits.covered_sides(preprocessing.image_shape, preprocessing.resize_ratio)
    shape = preprocessing.image_shape
    fits = images.pixels is not None and images.pixels.shape[1:] == shape
    if fits and crops == 1 and covered == shape[:2]:
        for start in range(0, images.count, size):
            part = every[start : start + size]
            yield Batch(part, start, images.pixels[start : part.stop], {})
        return
    reader = center_crop(preprocessing) if crops == 1 else ten_crops(preprocessing)
    yield from batches(images.count, every, size, reader, images.contents)


def _probabilities(model, images, crops):
    flat = images.reshape(-1, *model.preprocessing.image_shape)
    found = np.asarray(model.classifier.probabilities(tf.constant(flat)), np.float32)
    return found if crops == 1 else found.reshape(-1, crops, found.shape[-1]).mean(axis=1)


def _row(label, places, classes):
    row = np.zeros(classes, np.float32)
    if np.ndim(label):
        row[places] = label
    else:
        row[places[label]] = 1
    return row


def _check_finite(probabilities, good, images):
    finite = np.isfinite(probabilities).all(axis=1)
    if bad := good[~finite[good]].tolist():
        raise RunError(
            f"The model computes a probability that is not finite for {len(bad):,} images, the "
            f"first {printable(images.name(bad[0]))}: its weights are damaged or its training "
            "diverged"
        )
