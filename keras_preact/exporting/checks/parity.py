"""Exported files beside the Keras model: answers on real images, and speed."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_preact.exporting.checks.sampling_error import loss_interval
from keras_preact.support import tf32
from keras_preact.support.errors import RunError

# From uint8 images (batch, height, width, channels) to probabilities (batch, classes).
Predict = Callable[[np.ndarray], np.ndarray]

THROUGHPUT_BATCH = 32
# Least probability of a label, where an image may have several.
THRESHOLD = 0.5
_ROUNDS = 3


class ParityError(RunError):
    """An exported file does not compute what the Keras model computes."""


def answers(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """Returns the answers in probabilities (batch, classes).

    Returns:
        The likeliest class, int64 (batch,); where an image may have several labels, whether it
        has each, boolean (batch, classes).
    """
    return probabilities >= THRESHOLD if multi_label else probabilities.argmax(axis=1)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A file's answers compared with the Keras model's on the same images.

    Where an image may have several labels, an answer is all of them.

    Args:
        images: number of images.
        max_difference: largest difference of a probability; infinite where one is not finite.
        mean_difference: mean over all probabilities.
        worst_image: name of the image with the largest difference.
        accuracy: share of correct answers, 0 to 1.
        agreement: share of answers equal to the Keras model's, 0 to 1.
        lost: number of answers that the Keras model has right and the file wrong.
        gained: number of answers that the Keras model has wrong and the file right.
    """

    images: int
    max_difference: float
    mean_difference: float
    worst_image: str
    accuracy: float
    agreement: float
    lost: int
    gained: int

    @property
    def changed(self) -> int:
        """The number of answers that differ from the Keras model's."""
        return round((1 - self.agreement) * self.images)

    @property
    def loss_points(self) -> float:
        """Accuracy below that of the Keras model, in percentage points."""
        return 100 * (self.lost - self.gained) / self.images

    @property
    def loss_interval_points(self) -> tuple[float, float]:
        """The 90 % confidence interval of the loss."""
        low, high = loss_interval(self.images, self.lost, self.gained)
        return 100 * low, 100 * high


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over several rounds in which the predictors take turns.

    Args:
        latency_milliseconds: of one image.
        throughput_images_per_second: in batches of `THROUGHPUT_BATCH`.
    """

    latency_milliseconds: float
    throughput_images_per_second: float


@tf32.off()
def compare(
    predictors: Mapping[str, Predict],
    reference: str,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    name_of: Callable[[int], str],
) -> dict[str, Agreement]:
    """Compares the predictors' answers on the same images.

    Args:
        predictors: by name.
        reference: the name of the one to compare with.
        batches: (images, labels, weights) of `Dataset.eval`; images of weight 0 do not count.
        name_of: returns the name of the image at a position, counted from 0.
    """
    tallies = {name: _Tally() for name in predictors}
    for images, labels, weights in batches:
        counted = weights > 0
        found = {name: predict(images)[counted] for name, predict in predictors.items()}
        for name, probabilities in found.items():
            tallies[name].add(probabilities, found[reference], labels[counted])
    return {name: tally.result(name_of) for name, tally in tallies.items()}


class _Tally:
    def __init__(self):
        self._batches = []

    def add(self, probabilities, expected, labels):
        # NaN must not pass for a small difference.
        difference = np.abs(probabilities - expected)
        difference[np.isnan(difference)] = np.inf
        multi_label = labels.ndim == 2
        taken, keras = (answers(each, multi_label) for each in (probabilities, expected))
        self._batches.append(
            (
                *(difference.max(axis=1), difference.mean(axis=1)),
                *(_all_equal(*pair) for pair in ((taken, labels), (keras, labels), (taken, keras))),
            )
        )

    def result(self, name_of):
        largest, means, right, keras_right, same = map(
            np.concatenate, zip(*self._batches, strict=True)
        )
        return Agreement(
            images=len(largest),
            max_difference=float(largest.max()),
            mean_difference=float(means.mean()),
            worst_image=name_of(int(largest.argmax())),
            accuracy=float(right.mean()),
            agreement=float(same.mean()),
            lost=int((keras_right & ~right).sum()),
            gained=int((right & ~keras_right).sum()),
        )


def _all_equal(left, right):
    return (left == right).reshape(len(left), -1).all(axis=1)


def measure_speed(
    predictors: Mapping[str, Predict], image: np.ndarray, round_seconds: float = 0.5
) -> dict[str, Speed]:
    """Times all predictors.

    Args:
        predictors: by name.
        image: uint8 (height, width, channels); a batch holds copies of it.
        round_seconds: duration of each of three rounds, for each predictor and batch size.
    """
    seconds = {(name, size): [] for name in predictors for size in (1, THROUGHPUT_BATCH)}
    for _ in range(_ROUNDS):
        for (name, size), taken in seconds.items():
            images = np.repeat(image[None], size, axis=0)
            taken += _time(predictors[name], images, round_seconds)
    return {
        name: Speed(
            latency_milliseconds=1000 * statistics.median(seconds[name, 1]),
            throughput_images_per_second=THROUGHPUT_BATCH
            / statistics.median(seconds[name, THROUGHPUT_BATCH]),
        )
        for name in predictors
    }


def _time(predict, images, round_seconds):
    # The first call allocates memory and chooses kernels for this batch size.
    predict(images)
    taken, end = [], time.perf_counter() + round_seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        predict(images)
        taken.append(time.perf_counter() - start)
    return taken
