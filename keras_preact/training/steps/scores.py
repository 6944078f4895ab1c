"""The figures of an evaluation, from counts and from the order of scores."""

import dataclasses

import numpy as np

from keras_preact.support.choices import one_of

# Figures that may choose the best checkpoint; all but the loss are best if largest.
MONITORS = ("accuracy", "loss", "macro_f1", "mean_average_precision")
# The five likeliest of fewer classes are all of them.
TOP = 5


def chosen_monitor(monitor: str | None, multi_label: bool) -> str:
    """Returns the figure that chooses the best checkpoint.

    Args:
        monitor: one of `MONITORS`; None for the one that suits the labels.
        multi_label: whether an image may be of several classes, or none.

    Raises:
        ValueError: if the evaluation of such images has no such figure.
    """
    if monitor is None:
        return "mean_average_precision" if multi_label else "accuracy"
    if not multi_label:
        one_of("monitor of images with one label", monitor, MONITORS[:-1])
    return monitor


def f1_scores(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns the F1 score of each class; NaN for a class that is neither there nor predicted.

    Args:
        right: images of each class that are predicted to be of it, (classes,).
        predicted: images predicted to be of each class.
        true: images of each class.
    """
    with np.errstate(invalid="ignore"):
        return 2 * right / (predicted + true)


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision of each class: float64 (classes,).

    It is the sum of the precisions at all distinct scores, each times the recall gained there, as
    scikit-learn computes it: no interpolation, and images of equal scores come together. NaN for
    a class that no image has.

    Args:
        scores: of any scale, float (count, classes).
        labels: zeros and ones, (count, classes).
    """
    return np.array([_average_precision(*pair) for pair in zip(scores.T, labels.T, strict=True)])


def _average_precision(scores, labels):
    if not (positives := np.count_nonzero(labels)):
        return np.nan
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(labels[order] > 0)
    # The last place of each score.
    places = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    precisions = found[places] / (places + 1)
    return float(np.sum(np.diff(found[places], prepend=0) * precisions) / positives)


def _mean(values):
    """The mean of the numbers that are not NaN; 0 if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else 0.0


class Scored:
    """What evaluations of images with one and with several labels have in common."""

    def score(self, monitor: str) -> float:
        """Returns the monitored figure, negated if it is the loss: the larger, the better."""
        value = self.scores[monitor]
        return -value if monitor == "loss" else value


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation(Scored):
    """Means over the evaluation images, of one label each.

    Args:
        loss: cross-entropy, in nats.
        confusion: int64 (classes, classes): images by true class (row) and predicted class.
        top5: images whose class is among the five likeliest; None if it was not counted.
    """

    loss: float
    confusion: np.ndarray
    top5: int | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images classified correctly, 0 to 1."""
        return float(np.trace(self.confusion) / self.count)

    @property
    def class_accuracies(self) -> np.ndarray:
        """Fraction of each class's images classified correctly; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(axis=1)

    @property
    def top5_accuracy(self) -> float | None:
        """Fraction of the images whose class is among the five likeliest; None if all must be."""
        if self.top5 is None or len(self.confusion) <= TOP:
            return None
        return self.top5 / self.count

    @property
    def class_f1(self) -> np.ndarray:
        """F1 score of each class; NaN for a class that is neither there nor predicted."""
        counts = self.confusion
        return f1_scores(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 score of the classes that are there or are predicted, 0 to 1."""
        return _mean(self.class_f1)

    @property
    def scores(self) -> dict[str, float]:
        """Returns the figures by name, fractions from 0 to 1 and the loss."""
        top5 = {} if self.top5_accuracy is None else {"top5_accuracy": self.top5_accuracy}
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            **top5,
            "macro_f1": self.macro_f1,
        }

    def __str__(self) -> str:
        top5 = "" if self.top5_accuracy is None else f"top-5 {self.top5_accuracy:.2%}, "
        return (
            f"accuracy {self.accuracy:.2%} ({np.trace(self.confusion):,} of {self.count:,}), "
            f"error {1 - self.accuracy:.2%}, {top5}macro F1 {self.macro_f1:.2%}, "
            f"loss {self.loss:.4f}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class MultiLabelEvaluation(Scored):
    """Means over the evaluation images, of several labels each or none.

    A class is predicted where its probability is at least 1/2. Arrays are (classes,).

    Args:
        loss: binary cross-entropy, in nats, the mean over classes.
        count: number of images.
        exact: number of images with all labels right and no other.
        class_average_precisions: NaN for a class that no image has.
        right: images of each class that are predicted to be of it.
        predicted: images predicted to be of each class.
        true: images of each class.
    """

    loss: float
    count: int
    exact: int
    class_average_precisions: np.ndarray
    right: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, loss: float, logits: np.ndarray, labels: np.ndarray) -> "MultiLabelEvaluation":
        """Evaluates the logits of all images against their labels, both (count, classes)."""
        predicted, true = logits >= 0, labels > 0
        return cls(
            loss,
            len(labels),
            int((predicted == true).all(axis=1).sum()),
            # Probabilities near 1 would be rounded to the same number.
            average_precisions(logits, labels),
            (predicted & true).sum(axis=0),
            predicted.sum(axis=0),
            true.sum(axis=0),
        )

    @property
    def accuracy(self) -> float:
        """Fraction of the images with all labels right and no other, 0 to 1."""
        return self.exact / self.count

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision of the classes that some image has, 0 to 1."""
        return _mean(self.class_average_precisions)

    @property
    def class_f1(self) -> np.ndarray:
        """F1 score of each class; NaN for a class that is neither there nor predicted."""
        return f1_scores(self.right, self.predicted, self.true)

    @property
    def macro_f1(self) -> float:
        """Mean F1 score of the classes that are there or are predicted, 0 to 1."""
        return _mean(self.class_f1)

    @property
    def micro_f1(self) -> float:
        """F1 score of all pairs of image and class, 0 to 1."""
        return _mean(f1_scores(*(np.atleast_1d(n.sum()) for n in self._counts)))

    @property
    def _counts(self):
        return self.right, self.predicted, self.true

    @property
    def scores(self) -> dict[str, float]:
        """Returns the figures by name, fractions from 0 to 1 and the loss."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "mean_average_precision": self.mean_average_precision,
            "macro_f1": self.macro_f1,
            "micro_f1": self.micro_f1,
        }

    def __str__(self) -> str:
        return (
            f"mean average precision {self.mean_average_precision:.2%}, macro F1 "
            f"{self.macro_f1:.2%}, micro F1 {self.micro_f1:.2%}, all labels right "
            f"{self.accuracy:.2%} ({self.exact:,} of {self.count:,}), loss {self.loss:.4f}"
        )
