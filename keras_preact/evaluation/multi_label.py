"""Numbers about models that give each class a probability of its own: arrays in, numbers out."""

import dataclasses
import functools

import numpy as np

from keras_preact.evaluation import bootstrap
from keras_preact.evaluation.bootstrap import Interval
from keras_preact.evaluation.calibration import halves
from keras_preact.evaluation.metrics import half_of_smallest

# At least this probability means that an image is of a class, unless a threshold is fitted.
THRESHOLD = 0.5

DEFINITIONS = {
    "average_precision": "sum over the thresholds of (recall - recall at the threshold above) x "
    "precision, without interpolation",
    "mean_average_precision": "mean of the average precision over the classes that have images",
    "roc_auc": "probability that the model prefers an image of the class to another image; equal "
    "probabilities count half",
    "loss": "mean over images and classes of the binary cross-entropy, in nats",
    "exact_match": f"fraction of the images whose classes are all predicted at {THRESHOLD}, and no "
    "others",
    "macro": "mean over the classes that have images",
    "micro": "of all pairs of image and class together",
    "threshold": "the probability from which on an image counts as of the class: it maximizes F1 "
    "over all images",
    "fitted_macro_f1": "macro F1 where each half of the images, drawn at random, has the "
    "thresholds fitted to the other half",
    "expected_calibration_error": "of all pairs of image and class: sum over bins of (fraction of "
    "the pairs) x |fraction of true ones - mean probability|",
}


@dataclasses.dataclass(frozen=True)
class Answers:
    """Probabilities of images of any number of classes.

    Args:
        probabilities: float32 (images, classes).
        labels: float32 (images, classes) of zeros and ones.
        class_names: by column.

    Raises:
        ValueError: if there are no images, or shapes or labels do not fit.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        shape = (len(self.labels), len(self.class_names))
        if not shape[0] or not self.probabilities.shape == self.labels.shape == shape:
            raise ValueError(
                "Each of one or more images must have a label and a probability for each class. "
                f"Received: labels {self.labels.shape}, probabilities {self.probabilities.shape}, "
                f"{shape[1]} classes"
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError("Labels of several classes must be zeros and ones. Received: others")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def is_true(self) -> np.ndarray:
        """Whether an image is of a class, bool (images, classes)."""
        return self.labels > 0

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Whether its probability is at least `THRESHOLD`, bool (images, classes)."""
        return self.probabilities >= THRESHOLD

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """Whether all classes of an image are predicted, and no others, bool (images,)."""
        return (self.predicted == self.is_true).all(axis=1)

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """Binary cross-entropy, the mean over the classes, float64 (images,).

        A probability of 0 or 1 counts as half the next one to it.
        """
        found = np.where(self.is_true, self.probabilities, 1 - self.probabilities)
        return -np.log(np.maximum(found, half_of_smallest(found)), dtype=np.float64).mean(axis=1)

    @functools.cached_property
    def surprises(self) -> np.ndarray:
        """How far each probability is from the truth, float32 (images, classes)."""
        return np.abs(self.labels - self.probabilities)


@dataclasses.dataclass(frozen=True)
class PerClass:
    """Figures of each class, float64 (classes,); NaN where there is nothing to divide by.

    Args:
        average_precision: see `DEFINITIONS`.
        roc_auc: likewise.
        precision: at `THRESHOLD`.
        recall: likewise.
        f1: likewise.
        threshold: fitted; NaN for a class without images.
        best_f1: at that threshold, on the images it was fitted to.
        support: images of the class, int64 (classes,).
        predicted: images predicted as of the class at `THRESHOLD`, int64 (classes,).
    """

    average_precision: np.ndarray
    roc_auc: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    threshold: np.ndarray
    best_f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray


def per_class(answers: Answers) -> PerClass:
    """Returns the figures of each class."""
    curves = [_Curve(p, y) for p, y in zip(answers.probabilities.T, answers.is_true.T, strict=True)]
    right = (answers.predicted & answers.is_true).sum(axis=0)
    support, predicted = answers.is_true.sum(axis=0), answers.predicted.sum(axis=0)
    best = [curve.best_threshold() for curve in curves]
    with np.errstate(invalid="ignore"):
        return PerClass(
            average_precision=np.array([curve.average_precision() for curve in curves]),
            roc_auc=np.array([curve.roc_auc() for curve in curves]),
            precision=right / predicted,
            recall=right / support,
            f1=2 * right / (support + predicted),
            threshold=np.array([threshold for threshold, _ in best]),
            best_f1=np.array([f1 for _, f1 in best]),
            support=support,
            predicted=predicted,
        )


def summary(answers: Answers, figures: PerClass, seed: int = 0) -> dict[str, float]:
    """Returns the numbers of all images together, by the names in `DEFINITIONS`.

    Args:
        answers: of the model.
        figures: of each class.
        seed: draws the halves for fitted thresholds.
    """
    present = figures.support > 0
    right = int((answers.predicted & answers.is_true).sum())
    numbers = {
        "mean_average_precision": _mean(figures.average_precision[present]),
        "macro_roc_auc": _mean(figures.roc_auc[present]),
        "loss": float(answers.losses.mean()),
        "exact_match": float(answers.correct.mean()),
    }
    for name in ("precision", "recall", "f1"):
        numbers[f"macro_{name}"] = _mean(np.nan_to_num(getattr(figures, name))[present])
    support, predicted = int(figures.support.sum()), int(figures.predicted.sum())
    numbers |= {
        "micro_precision": right / predicted if predicted else 0.0,
        "micro_recall": right / support if support else 0.0,
        "micro_f1": 2 * right / (support + predicted) if support + predicted else 0.0,
    }
    return numbers | {"fitted_macro_f1": _fitted_macro_f1(answers, present, seed)}


def mean_average_precision(answers: Answers, weights: np.ndarray) -> np.ndarray:
    """Returns the mean average precision where images count several times, float64 (resamples,).

    Args:
        answers: of the model.
        weights: how often each image counts, (resamples, images).
    """
    columns = zip(answers.probabilities.T, answers.is_true.T, strict=True)
    values = np.stack([_Curve(p, y).average_precision(weights) for p, y in columns if y.any()])
    present = np.isfinite(values)
    return np.where(present, values, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)


def intervals(answers: Answers, resamples: int, seed: int) -> dict[str, Interval]:
    """Returns the intervals of "mean_average_precision" and "exact_match"."""
    statistics = {
        "mean_average_precision": lambda draws: mean_average_precision(answers, draws),
        "exact_match": lambda draws: draws[:, answers.correct].sum(axis=1) / len(answers),
    }
    found = bootstrap.resampled(np.ones(len(answers), int), statistics, resamples, seed)
    return {name: bootstrap.interval(values) for name, values in found.items()}


class _Curve:
    """Precision and recall of a class at each threshold, the highest first.

    Args:
        probabilities: of the class (images,).
        is_true: whether each image is of it, bool (images,).
    """

    def __init__(self, probabilities, is_true):
        self._order = np.argsort(-probabilities, kind="stable")
        self._scores = probabilities[self._order].astype(np.float64)
        self._true = is_true[self._order]
        # Equal probabilities pass a threshold together.
        self._ends = np.flatnonzero(np.diff(self._scores, append=-np.inf))

    def average_precision(self, weights=None):
        """NaN without an image of the class; (resamples,) with weights (resamples, images)."""
        if weights is None:
            return float(self.average_precision(np.ones((1, len(self._order)), int))[0])
        weights = weights[:, self._order]
        taken = np.cumsum(weights, axis=1)[:, self._ends]
        right = np.cumsum(weights * self._true, axis=1)[:, self._ends]
        with np.errstate(invalid="ignore"):
            precision = np.nan_to_num(right / taken)
            steps = np.diff(right, axis=1, prepend=0)
            return (steps * precision).sum(axis=1) / right[:, -1]

    def roc_auc(self):
        """NaN where all images, or none, are of the class."""
        count, positives = len(self._true), int(self._true.sum())
        negatives = count - positives
        if not positives or not negatives:
            return np.nan
        right = np.cumsum(self._true)[self._ends]
        wrong = self._ends + 1 - right
        area = np.diff(wrong, prepend=0) * (right + np.concatenate([[0], right[:-1]])) / 2
        return float(area.sum() / (positives * negatives))

    def best_threshold(self):
        """(threshold, its F1): halfway to the next lower probability; NaN without an image."""
        positives = int(self._true.sum())
        if not positives:
            return np.nan, np.nan
        right = np.cumsum(self._true)[self._ends]
        f1 = 2 * right / (self._ends + 1 + positives)
        place = int(np.argmax(f1))
        above = self._scores[self._ends[place]]
        last = place + 1 == len(self._ends)
        below = above if last else self._scores[self._ends[place + 1]]
        return (above + below) / 2, float(f1[place])


def _fitted_macro_f1(answers, present, seed):
    predicted = np.zeros_like(answers.predicted)
    for fitted, rest in halves(len(answers), seed):
        for place in range(answers.classes):
            curve = _Curve(answers.probabilities[fitted, place], answers.is_true[fitted, place])
            threshold, _ = curve.best_threshold()
            threshold = THRESHOLD if np.isnan(threshold) else threshold
            predicted[rest, place] = answers.probabilities[rest, place] >= threshold
    right = (predicted & answers.is_true).sum(axis=0)
    counts = predicted.sum(axis=0) + answers.is_true.sum(axis=0)
    return _mean((2 * right / np.maximum(counts, 1))[present])


def _mean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
