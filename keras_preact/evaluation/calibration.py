"""How far probabilities agree with frequencies, and the temperature that makes them agree best.

Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), sections 2 and 4.2; the
adaptive error: Nguyen and O'Connor, "Posterior calibration and exploratory analysis" (2015).
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from keras_preact.evaluation.metrics import Answers, half_of_smallest

BINS = 15
# Temperatures that are searched, and how far: by thousandths.
_RANGE, _TOLERANCE = (0.05, 20.0), 1e-3
_MOST_STEPS = 10
_ROWS = 4096

DEFINITIONS = {
    "expected_calibration_error": "sum over bins of (fraction of the images) x |accuracy - mean "
    f"confidence|, with {BINS} bins of equal width by default; a bin includes its upper end",
    "maximum_calibration_error": "the largest |accuracy - mean confidence| of a bin with images",
    "adaptive_calibration_error": "the same sum over as many bins of equal numbers of images",
    "temperature": "divides the logits; it minimizes the loss over all images. A model that has a "
    "temperature already counts: this is the product",
    "after_temperature": "loss and calibration error where each half of the images, drawn at "
    "random, has the temperature fitted to the other half",
}


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Bins of confidence.

    Args:
        edges: their ends, float64 (bins + 1,).
        counts: predictions in each, int64 (bins,).
        confidence: mean probability, float64 (bins,); NaN in an empty bin.
        accuracy: fraction that is right, likewise.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def _gaps(self):
        return np.nan_to_num(np.abs(self.accuracy - self.confidence))

    @property
    def expected_error(self) -> float:
        """The expected calibration error."""
        return float(np.sum(self._gaps * self.counts) / self.counts.sum())

    @property
    def maximum_error(self) -> float:
        """The largest difference of a bin."""
        return float(self._gaps.max())


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS, adaptive: bool = False
) -> Reliability:
    """Sorts predictions into bins by their confidence.

    Args:
        confidence: probabilities (predictions,).
        correct: whether each came true, bool (predictions,).
        bins: number of them; equal ends of adaptive bins are merged.
        adaptive: bins of equal numbers of predictions, not of equal width.
    """
    confidence = np.asarray(confidence, np.float64)
    if adaptive:
        ends = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
        edges = np.concatenate([[0.0], np.unique(ends), [1.0]])
    else:
        edges = np.linspace(0, 1, bins + 1)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    size = len(edges) - 1
    counts = np.bincount(places, minlength=size)
    sums = np.bincount(places, weights=confidence, minlength=size)
    right = np.bincount(places, weights=correct, minlength=size)
    with np.errstate(invalid="ignore"):
        return Reliability(edges, counts, sums / counts, right / counts)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """A fitted temperature and what it changes.

    Args:
        value: minimizes the loss over all images.
        at_end_of_range: whether the search ended at an end of its range, as it does where
            every answer is right.
        loss: mean over the images, each half with the temperature fitted to the other.
        reliability: likewise.
        adaptive_error: likewise.
    """

    value: float
    at_end_of_range: bool
    loss: float
    reliability: Reliability
    adaptive_error: float


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature that minimizes the loss.

    A golden-section search on its logarithm, over some thousand images, evenly spaced; if there
    are more, Newton's method goes on over all of them, as the loss is convex in the inverse.

    Args:
        logits: float (images, classes), up to a number for each image; log-probabilities will do.
        labels: int (images,) of one class each; or float (images, classes) of zeros and ones, where
            each class has a probability of its own.
    """
    count = len(labels)
    of_rows = _losses if labels.ndim == 1 else _binary_losses
    some = np.linspace(0, count - 1, min(count, _ROWS), dtype=np.int64)
    few, their_labels = logits[some], labels[some]

    def loss(log_temperature):
        return of_rows(few * np.float32(np.exp(-log_temperature)), their_labels).mean()

    inverse = np.exp(-_minimize(loss, *np.log(_RANGE)))
    of_rows = _slopes if labels.ndim == 1 else _binary_slopes
    for _ in range(_MOST_STEPS if count > _ROWS else 0):
        parts = [of_rows(logits[rows], labels[rows], inverse) for rows in _blocks(count)]
        slope, curvature = np.sum(parts, axis=0)
        before = inverse
        inverse = np.clip(before - slope / max(curvature, 1e-30), 1 / _RANGE[1], 1 / _RANGE[0])
        if abs(np.log(inverse / before)) < _TOLERANCE:
            break
    return float(1 / inverse)


def temperature(
    answers: Answers, bins: int = BINS, seed: int = 0, before: float = 1.0
) -> Temperature | None:
    """Fits the temperature of a model and measures its effect crosswise; None for one image.

    Args:
        answers: of the model.
        bins: of the calibration error.
        seed: draws the halves.
        before: the temperature that the model has already; the value includes it.
    """
    floor = np.float32(max(answers.floor, np.finfo(np.float32).tiny))
    logits = np.log(np.maximum(answers.probabilities, floor))
    confidence, losses = np.empty(len(answers)), np.empty(len(answers))
    for fitted, rest in halves(len(answers), seed):
        if not len(fitted):
            return None
        value = fit_temperature(logits[fitted], answers.labels[fitted])
        scaled, labels = logits[rest] / np.float32(value), answers.labels[rest]
        losses[rest] = _losses(scaled, labels)
        confidence[rest] = np.exp(scaled.max(axis=1) - _log_sum(scaled))
    found = fit_temperature(logits, answers.labels)
    return Temperature(
        found * before,
        is_end(found),
        float(losses.mean()),
        reliability(confidence, answers.correct, bins),
        reliability(confidence, answers.correct, bins, adaptive=True).expected_error,
    )


def multi_label_temperature(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = BINS,
    seed: int = 0,
    before: float = 1.0,
) -> Temperature | None:
    """Does the same where each class has a probability of its own.

    Args:
        probabilities: float32 (images, classes).
        labels: float32 (images, classes) of zeros and ones.
        bins: as for `temperature`.
        seed: likewise.
        before: likewise.
    """
    logits = inverse_sigmoid(probabilities)
    scaled = np.empty_like(logits)
    for fitted, rest in halves(len(labels), seed):
        if not len(fitted):
            return None
        value = fit_temperature(logits[fitted], labels[fitted])
        scaled[rest] = logits[rest] / np.float32(value)
    found = fit_temperature(logits, labels)
    confidence, is_true = sigmoid(scaled).ravel(), labels.ravel() > 0
    return Temperature(
        found * before,
        is_end(found),
        float(_binary_losses(scaled, labels).mean()),
        reliability(confidence, is_true, bins),
        reliability(confidence, is_true, bins, adaptive=True).expected_error,
    )


def halves(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (first, second) and (second, first): indices of two random halves, in order."""
    order = np.random.default_rng(seed).permutation(count)
    first, second = np.sort(order[: count // 2]), np.sort(order[count // 2 :])
    yield first, second
    if count > 1:
        yield second, first


def inverse_sigmoid(probabilities: np.ndarray) -> np.ndarray:
    """Returns logits, float32, of probabilities; 0 and 1 count as half the next one to them."""
    rest = 1 - probabilities
    tiny = float(np.finfo(np.float32).tiny)
    least = np.float32(max(half_of_smallest(probabilities), tiny))
    least_rest = np.float32(max(half_of_smallest(rest), tiny))
    return np.log(np.maximum(probabilities, least)) - np.log(np.maximum(rest, least_rest))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)), without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def is_end(value: float) -> bool:
    """Whether a fitted temperature lies at an end of the range that was searched."""
    return not _RANGE[0] * 1.01 < value < _RANGE[1] / 1.01


def _losses(logits, labels):
    own = logits[np.arange(len(labels)), labels]
    return (_log_sum(logits) - own).astype(np.float64)


def _binary_losses(logits, labels):
    return (np.logaddexp(0, logits) - labels * logits).mean(axis=1).astype(np.float64)


def _slopes(logits, labels, inverse):
    """Sums of the first and second derivative of the loss by the inverse temperature."""
    scaled = logits * np.float32(inverse)
    np.exp(scaled - scaled.max(axis=1, keepdims=True), out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    # Relative to the own class: the differences are what counts, and are small numbers.
    logits = logits - logits[np.arange(len(labels)), labels][:, None]
    mean = np.einsum("nc,nc->n", scaled, logits)
    square = np.einsum("nc,nc,nc->n", scaled, logits, logits)
    return mean.sum(dtype=np.float64), (square - mean**2).sum(dtype=np.float64)


def _binary_slopes(logits, labels, inverse):
    probabilities = sigmoid(logits * np.float32(inverse))
    slope = (logits * (probabilities - labels)).sum(dtype=np.float64)
    return slope, (logits**2 * probabilities * (1 - probabilities)).sum(dtype=np.float64)


def _log_sum(logits):
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def _minimize(function, low, high):
    """The place of the minimum of a function with one, to `_TOLERANCE`."""
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _blocks(count):
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
