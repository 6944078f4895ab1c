"""Confidence intervals by the bootstrap: the images are drawn again, with replacement.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13 (percentile
intervals). The draws are plain, not stratified by class.
"""

from collections.abc import Callable, Mapping

import numpy as np

RESAMPLES = 1000
PERCENT = 95
# Numbers that are drawn together.
_MOST_NUMBERS = 4_000_000

DEFINITIONS = {
    "interval": f"{PERCENT} % percentile bootstrap over the images, drawn with replacement and not "
    "stratified by class",
}

# From draws, int (resamples, kinds), to a number for each resample.
Statistic = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float]


def resampled(
    counts: np.ndarray, statistics: Mapping[str, Statistic], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns each statistic in each resample, float64 (resamples,).

    Drawing images that fall into some kinds, such as the cells of a confusion matrix, means to
    draw how many there are of each kind, from a multinomial distribution: that takes as long
    as there are kinds, not images.

    Args:
        counts: images of each kind, int (kinds,).
        statistics: by name; all see the same draws.
        resamples: number of them.
        seed: of the draws.
    """
    generator, total = np.random.default_rng(seed), counts.sum()
    parts: dict[str, list] = {name: [] for name in statistics}
    for size in _sizes(resamples, len(counts)):
        draws = generator.multinomial(total, counts / total, size=size)
        for name, statistic in statistics.items():
            parts[name].append(statistic(draws))
    return {name: np.concatenate(part) for name, part in parts.items()}


def resampled_mean(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Returns the mean of values (images,) in each resample, float64 (resamples,)."""
    generator, values = np.random.default_rng(seed), np.asarray(values, np.float64)
    return np.concatenate(
        [
            values[generator.integers(len(values), size=(size, len(values)))].mean(axis=1)
            for size in _sizes(resamples, len(values))
        ]
    )


def interval(values: np.ndarray) -> Interval:
    """Returns the ends of the percentile interval of a statistic's resamples."""
    tail = (100 - PERCENT) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


class Cells:
    """The pairs of true and predicted class that images fall into, and statistics of them.

    Args:
        true: of each kind of image, int (kinds,).
        predicted: likewise.
        classes: of the model.
    """

    def __init__(self, true: np.ndarray, predicted: np.ndarray, classes: int):
        self._right = true == predicted
        self._classes = classes
        self._by_true, self._by_predicted = _Sums(true), _Sums(predicted)
        self._by_right = _Sums(true, self._right)

    def accuracy(self, draws: np.ndarray) -> np.ndarray:
        """Returns the accuracy in each resample."""
        return draws[:, self._right].sum(axis=1) / draws.sum(axis=1)

    def macro_f1(self, draws: np.ndarray) -> np.ndarray:
        """Returns the mean F1 over the classes that have images in the resample."""
        support = self._by_true(draws, self._classes)
        predicted = self._by_predicted(draws, self._classes)
        right = self._by_right(draws, self._classes)
        with np.errstate(invalid="ignore"):
            f1 = 2 * right / (support + predicted)
        present = support > 0
        return np.where(present, f1, 0).sum(axis=1) / present.sum(axis=1)


class _Sums:
    """Sums columns by a key, of the columns in a mask."""

    def __init__(self, keys, mask=None):
        columns = np.arange(len(keys)) if mask is None else np.flatnonzero(mask)
        self._columns = columns[np.argsort(keys[columns], kind="stable")]
        self._keys, self._starts = np.unique(keys[self._columns], return_index=True)

    def __call__(self, draws, keys):
        sums = np.zeros((len(draws), keys), draws.dtype)
        if len(self._columns):
            found = np.add.reduceat(draws[:, self._columns], self._starts, axis=1)
            sums[:, self._keys] = found
        return sums


def confusion_intervals(confusion: np.ndarray, resamples: int, seed: int) -> dict[str, Interval]:
    """Returns the intervals of "accuracy" and "macro_f1".

    Args:
        confusion: int (classes, classes): images by true class (row) and predicted class.
        resamples: number of them.
        seed: of the draws.
    """
    kinds = np.flatnonzero(confusion)
    cells = Cells(*np.divmod(kinds, len(confusion)), len(confusion))
    statistics = {"accuracy": cells.accuracy, "macro_f1": cells.macro_f1}
    found = resampled(confusion.ravel()[kinds], statistics, resamples, seed)
    return {name: interval(values) for name, values in found.items()}


def _sizes(resamples, numbers):
    """The resamples that are drawn at a time."""
    most = max(1, _MOST_NUMBERS // max(numbers, 1))
    return [min(most, resamples - start) for start in range(0, resamples, most)]
