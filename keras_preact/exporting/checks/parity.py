"""What has been exported, beside the Keras model: answers on real images, and speed."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_preact.support.errors import RunError

# From uint8 images (batch, height, width, channels) to probabilities (batch, classes).
Predict = Callable[[np.ndarray], np.ndarray]

THROUGHPUT_BATCH = 32
_ROUNDS = 3
# Of each batch size, round and predictor.
_ROUND_SECONDS = 0.5


class ParityError(RunError):
    """What has been written does not compute what the Keras model computes."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How answers compare with the Keras model's, over the same images.

    Args:
        images: how many.
        max_difference: the largest of a probability; infinite where one is not finite.
        mean_difference: over all probabilities.
        worst_image: the position of the image with the largest difference.
        accuracy: share of right answers, 0 to 1.
        agreement: share of answers that are those of the Keras model.
    """

    images: int
    max_difference: float
    mean_difference: float
    worst_image: int
    accuracy: float
    agreement: float


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over several rounds, the predictors in turn.

    Args:
        latency_milliseconds: of one image.
        throughput_images_per_second: in batches of `THROUGHPUT_BATCH`.
    """

    latency_milliseconds: float
    throughput_images_per_second: float


def compare(
    predictors: Mapping[str, Predict],
    reference: str,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> dict[str, Agreement]:
    """Asks all predictors about the same images.

    Args:
        predictors: by name.
        reference: the name of the one to compare with.
        batches: (images, labels, weights) of `Dataset.eval`; images of weight 0 do not count.
    """
    tallies = {name: _Tally() for name in predictors}
    for images, labels, weights in batches:
        counted = weights > 0
        answers = {name: predict(images)[counted] for name, predict in predictors.items()}
        for name, answer in answers.items():
            tallies[name].add(answer, answers[reference], labels[counted])
    return {name: tally.result() for name, tally in tallies.items()}


class _Tally:
    def __init__(self):
        self._differences, self._means, self._right, self._same = [], [], [], []

    def add(self, answer, expected, labels):
        # NaN must not pass for a small difference.
        difference = np.abs(answer - expected)
        difference[np.isnan(difference)] = np.inf
        self._differences.append(difference.max(axis=1))
        self._means.append(difference.mean(axis=1))
        self._right.append(answer.argmax(axis=1) == labels)
        self._same.append(answer.argmax(axis=1) == expected.argmax(axis=1))

    def result(self):
        differences = np.concatenate(self._differences)
        return Agreement(
            images=len(differences),
            max_difference=float(differences.max()),
            mean_difference=float(np.concatenate(self._means).mean()),
            worst_image=int(differences.argmax()),
            accuracy=float(np.concatenate(self._right).mean()),
            agreement=float(np.concatenate(self._same).mean()),
        )


def measure_speed(predictors: Mapping[str, Predict], image: np.ndarray) -> dict[str, Speed]:
    """Times all predictors.

    Args:
        predictors: by name.
        image: uint8 (height, width, channels); a batch holds copies of it.
    """
    seconds = {(name, size): [] for name in predictors for size in (1, THROUGHPUT_BATCH)}
    for _ in range(_ROUNDS):
        for (name, size), taken in seconds.items():
            taken += _time(predictors[name], np.repeat(image[None], size, axis=0))
    return {
        name: Speed(
            latency_milliseconds=1000 * statistics.median(seconds[name, 1]),
            throughput_images_per_second=THROUGHPUT_BATCH
            / statistics.median(seconds[name, THROUGHPUT_BATCH]),
        )
        for name in predictors
    }


def _time(predict, images):
    # Memory and kernels for this size of batch are chosen in the first call.
    predict(images)
    taken, end = [], time.perf_counter() + _ROUND_SECONDS
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        predict(images)
        taken.append(time.perf_counter() - start)
    return taken
