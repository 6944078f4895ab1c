"""Images that deserve a look: confident mistakes and uncertain answers, with Grad-CAM."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_preact.analysis import grad_cam
from keras_preact.evaluation import figures, metrics, multi_label
from keras_preact.evaluation.answers import Answers, pixels
from keras_preact.evaluation.images import Images
from keras_preact.evaluation.models import Model

# Smaller images are enlarged to this side, larger ones made smaller.
_SIDE = 160


@dataclasses.dataclass(frozen=True)
class Example:
    """An image of the page.

    Args:
        place: of the image among the answers.
        predicted: the class whose probability is shown.
        probability: of it.
        true: names of the image's classes.
    """

    place: int
    predicted: int
    probability: float
    true: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An example and its pixels.

    Args:
        example: the image.
        name: its path.
        png: the image, where the predicted class is seen, and where the true one is, side by
            side; the image alone without Grad-CAM.
        parts: what the parts of the picture are.
    """

    example: Example
    name: str
    png: bytes
    parts: tuple[str, ...]


def mistakes(answers: Answers, most: int) -> list[Example]:
    """Returns the wrong answers of the highest confidence.

    Where an image may be of several classes these are the pairs of image and class whose
    probability is farthest from the truth.
    """
    if isinstance(answers, metrics.Answers):
        wrong = np.flatnonzero(~answers.correct)
        order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")]
        return [_example(answers, int(place)) for place in order[:most]]
    wrong = np.flatnonzero((answers.predicted != answers.is_true).ravel())
    surprises = answers.surprises.ravel()
    order = wrong[np.argsort(-surprises[wrong], kind="stable")][:most]
    return [_pair(answers, *divmod(int(cell), answers.classes)) for cell in order]


def uncertain(answers: Answers, most: int) -> list[Example]:
    """Returns the images whose two likeliest classes are closest to each other.

    Where an image may be of several classes these are the pairs of image and class whose
    probability is closest to a half, one for each image.
    """
    if isinstance(answers, metrics.Answers):
        two = np.partition(answers.probabilities, -2, axis=1)[:, -2:]
        order = np.argsort(two[:, 1] - two[:, 0], kind="stable")[:most]
        return [_example(answers, int(place)) for place in order]
    distance = np.abs(answers.probabilities - multi_label.THRESHOLD)
    classes = distance.argmin(axis=1)
    order = np.argsort(distance.min(axis=1), kind="stable")[:most]
    return [_pair(answers, int(place), int(classes[place])) for place in order]


def _example(answers, place):
    predicted = int(answers.predicted[place])
    true = (answers.class_names[answers.labels[place]],)
    return Example(place, predicted, float(answers.confidence[place]), true)


def _pair(answers, place, label):
    true = tuple(answers.class_names[n] for n in np.flatnonzero(answers.is_true[place]))
    return Example(place, label, float(answers.probabilities[place, label]), true)


def pictures(
    model: Model,
    images: Images,
    indices: np.ndarray,
    answers: Answers,
    chosen: Sequence[Example],
    with_maps: bool,
) -> list[Picture]:
    """Reads the images of examples again and draws them.

    Args:
        model: that answered.
        images: all of them.
        indices: of the answered ones in the data.
        answers: of the model.
        chosen: examples.
        with_maps: whether to compute Grad-CAM, which takes a Keras model.

    Raises:
        ValueError: if the network has no map; see `analysis.grad_cam`.
    """
    if not chosen:
        return []
    numbers = np.array([example.place for example in chosen])
    found = pixels(model, images, indices[numbers])
    maps = {}
    if with_maps:
        labels = {name: label for label, name in enumerate(model.class_names)}
        predicted = [labels[answers.class_names[example.predicted]] for example in chosen]
        maps["where the predicted class is seen"] = _maps(model, found, predicted)
        if isinstance(answers, metrics.Answers):
            true = [labels[example.true[0]] for example in chosen]
            maps["where the true class is seen"] = _maps(model, found, true)
    result = []
    for place, example in enumerate(chosen):
        shown = {name: part[place] for name, part in maps.items()}
        if not isinstance(answers, metrics.Answers) or answers.correct[example.place]:
            shown.pop("where the true class is seen", None)
        png = tf.io.encode_png(_beside(found[place], list(shown.values()))).numpy()
        name = images.name(int(indices[example.place]))
        result.append(Picture(example, name, png, ("the image", *shown)))
    return result


def _maps(model, found, classes):
    network: keras.Model = model.network
    inputs = model.preprocessing.normalize(found)
    return grad_cam(network, inputs, np.array(classes), resize=False)


def _beside(image, maps):
    """The image and, to its right, each map over it, at a size for the page."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    # Pixels of small images stay visible.
    method = "nearest" if scale > 1 else "area"
    sized = tf.cast(tf.round(tf.image.resize(image, sides, method=method)), tf.uint8).numpy()
    white = np.full((sides[0], 6, 3), 255, np.uint8)
    parts = [sized if sized.shape[-1] == 3 else np.repeat(sized, 3, axis=-1)]
    for each in maps:
        weights = tf.image.resize(each[..., None], sides)[..., 0].numpy()
        parts += [white, figures.overlaid(sized, weights)]
    return np.concatenate(parts, axis=1)
