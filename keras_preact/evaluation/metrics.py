"""Numbers about the answers of a classifier: arrays in, numbers out.

Labels and classes are numbers of the model's classes. Nothing here needs TensorFlow.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

TOP_K = 5
# Rows of probabilities that are looked at together.
_ROWS = 4096
# Below, float32 has no positive number.
_LEAST = 2.0**-150

DEFINITIONS = {
    "accuracy": "fraction of the images whose likeliest class is theirs (top-1)",
    "error": "1 - accuracy",
    "top5_accuracy": "fraction of the images whose class is among the five likeliest",
    "loss": "mean over the images of -log(probability of the image's class), in nats",
    "brier_score": "mean over the images of the sum over classes of (probability - 0 or 1)^2",
    "precision": "of the images predicted as a class, the fraction that is of it; 0 in means if "
    "there are none",
    "recall": "of the images of a class, the fraction predicted as it",
    "f1": "harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)",
    "macro": "mean over the classes that have images",
    "weighted": "mean over the classes, each weighted by its number of images",
    "accuracy_among_data_classes": "accuracy if the likeliest class is chosen among those of the "
    "data alone",
}


@dataclasses.dataclass(frozen=True)
class Answers:
    """Probabilities of images of one class each, and the images' classes.

    Args:
        probabilities: float32 (images, classes).
        labels: int (images,), of the model's classes.
        class_names: of the model, by label.

    Raises:
        ValueError: if there are no images, or shapes or labels do not fit.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        shape = (len(self.labels), len(self.class_names))
        labels = np.asarray(self.labels)
        if not shape[0] or self.probabilities.shape != shape or labels.ndim != 1:
            raise ValueError(
                "Each of one or more images must have a label and a probability for each class. "
                f"Received: labels {labels.shape}, probabilities {self.probabilities.shape}, "
                f"{shape[1]} classes"
            )
        if labels.min() < 0 or labels.max() >= shape[1]:
            raise ValueError(
                f"Labels must be 0 to {shape[1] - 1}. Received: {labels.min()} to {labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each image, int64 (images,); of equals, the first."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the likeliest class, float32 (images,)."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """Whether the likeliest class is the image's, bool (images,)."""
        return self.predicted == self.labels

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """-log(probability of the image's class), float64 (images,).

        A probability of 0, as of an 8-bit model, counts as half the smallest positive one.
        """
        own = self.probabilities[np.arange(len(self)), self.labels].astype(np.float64)
        return -np.log(np.maximum(own, self.floor))

    @functools.cached_property
    def floor(self) -> float:
        """The number that stands for a probability of 0: half the smallest positive one."""
        return half_of_smallest(self.probabilities)

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """Number of classes before the image's own, the likeliest first, int64 (images,)."""
        found = []
        for rows in _blocks(len(self)):
            part, labels = self.probabilities[rows], self.labels[rows, None]
            own = np.take_along_axis(part, labels, axis=1)
            before = (part == own) & (np.arange(self.classes) < labels)
            found.append(((part > own) | before).sum(axis=1))
        return np.concatenate(found)

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Images by true class (row) and predicted class (column), int64 (classes, classes)."""
        pairs = self.labels.astype(np.int64) * self.classes + self.predicted
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)

    def top_k_accuracy(self, k: int = TOP_K) -> float:
        """Returns the fraction of the images whose class is among the k likeliest."""
        return float(np.mean(self.ranks < k))

    def brier_score(self) -> float:
        """Returns the mean over the images of the squared distance to the true answer."""
        own = self.probabilities[np.arange(len(self)), self.labels].astype(np.float64)
        squares = np.concatenate(
            [np.square(self.probabilities[rows], dtype=np.float64).sum(1) for rows in self.blocks()]
        )
        return float(np.mean(1 - 2 * own + squares))

    def accuracy_among(self, classes: np.ndarray) -> float:
        """Returns the accuracy if only some classes may be chosen; labels must be of these."""
        chosen = classes[self.probabilities[:, classes].argmax(axis=1)]
        return float(np.mean(chosen == self.labels))

    def blocks(self) -> Iterator[slice]:
        """Yields slices of some thousand images, which need little memory at a time."""
        return _blocks(len(self))


@dataclasses.dataclass(frozen=True)
class PerClass:
    """Figures of each class, float64 (classes,); NaN where there is nothing to divide by.

    Args:
        precision: see `DEFINITIONS`.
        recall: likewise.
        f1: likewise.
        support: images of the class, int64 (classes,).
        predicted: images predicted as the class, int64 (classes,).
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    def averages(self) -> dict[str, dict[str, float]]:
        """Returns macro and weighted means of precision, recall and F1."""
        present = self.support > 0
        columns = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        values = {name: np.nan_to_num(column)[present] for name, column in columns.items()}
        weights = self.support[present]
        return {
            "macro": {name: float(np.mean(column)) for name, column in values.items()},
            "weighted": {
                name: float(np.average(column, weights=weights)) for name, column in values.items()
            },
        }


def per_class(confusion: np.ndarray) -> PerClass:
    """Returns the figures of each class.

    Args:
        confusion: int (classes, classes): images by true class (row) and predicted class.
    """
    right, support = np.diag(confusion), confusion.sum(axis=1)
    predicted = confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return PerClass(
            precision=right / predicted,
            recall=right / support,
            f1=2 * right / (support + predicted),
            support=support,
            predicted=predicted,
        )


def confused_pairs(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """Returns (true class, predicted class, images) of the commonest confusions, most first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    cells = np.flatnonzero(wrong)
    cells = cells[np.argsort(-wrong.ravel()[cells], kind="stable")][:most]
    return [(*divmod(int(cell), len(wrong)), int(wrong.ravel()[cell])) for cell in cells]


def selective_accuracy(answers: Answers) -> dict[str, np.ndarray]:
    """Returns the accuracy among the most confident images, by the fraction that is kept.

    Returns:
        "coverage", "least_confidence" and "accuracy", each float64 (10,): of 10 to 100 %. Images of
        equal confidence are kept in their order.
    """
    order = np.argsort(-answers.confidence, kind="stable")
    coverage = np.arange(1, 11) / 10
    kept = np.maximum(np.ceil(coverage * len(answers) - 1e-9).astype(int), 1)
    right = np.cumsum(answers.correct[order])
    return {
        "coverage": coverage,
        "least_confidence": answers.confidence[order][kept - 1].astype(np.float64),
        "accuracy": right[kept - 1] / kept,
    }


def summary(answers: Answers) -> dict[str, float]:
    """Returns the numbers of all images together, by the names in `DEFINITIONS`."""
    present = np.unique(answers.labels)
    numbers = {
        "accuracy": float(np.mean(answers.correct)),
        "error": 1 - float(np.mean(answers.correct)),
        "loss": float(np.mean(answers.losses)),
        "brier_score": answers.brier_score(),
    }
    if answers.classes > TOP_K:
        numbers["top5_accuracy"] = answers.top_k_accuracy()
    if len(present) < answers.classes:
        numbers["accuracy_among_data_classes"] = answers.accuracy_among(present)
    for mean, values in per_class(answers.confusion).averages().items():
        numbers |= {f"{mean}_{name}": value for name, value in values.items()}
    return numbers


def half_of_smallest(probabilities: np.ndarray) -> float:
    """Returns half the smallest positive one of some probabilities."""
    smallest = min(
        np.min(part, where=part > 0, initial=np.float32(1))
        for part in (probabilities[rows] for rows in _blocks(len(probabilities)))
    )
    return max(float(smallest) / 2, _LEAST)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
