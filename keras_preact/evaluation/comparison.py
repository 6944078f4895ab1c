"""Two models on the same images: differences, their intervals, and McNemar's test.

Source of the test: McNemar, "Note on the sampling error of the difference between correlated
proportions or percentages" (1947); for classifiers: Dietterich, "Approximate Statistical Tests for
Comparing Supervised Classification Learning Algorithms" (1998).
"""

import dataclasses
import math

import numpy as np

from keras_preact.evaluation import bootstrap
from keras_preact.evaluation.bootstrap import Cells, Interval
from keras_preact.evaluation.metrics import Answers

# With fewer disagreements the exact distribution is used.
EXACT_BELOW = 25

DEFINITIONS = {
    "difference": "the second model's number minus the first's; its interval draws the same images "
    "for both",
    "mcnemar": "p value of the hypothesis that both models err equally often, from the images that "
    f"one alone gets right: the exact binomial test below {EXACT_BELOW} of them, otherwise chi "
    "squared, (|b - c| - 1)^2 / (b + c), with continuity correction",
}


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's test.

    Args:
        only_first: images that the first model alone gets right.
        only_second: images that the second alone gets right.
        test: "exact binomial" or "chi squared with continuity correction".
        statistic: the smaller count of the exact test, or chi squared.
        p_value: of two sides.
    """

    only_first: int
    only_second: int
    test: str
    statistic: float
    p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Tests whether two models err equally often.

    Args:
        first: whether the first model is right, bool (images,).
        second: the same of the second.
    """
    b, c = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if (count := b + c) < EXACT_BELOW:
        smaller = min(b, c)
        tail = sum(math.comb(count, k) for k in range(smaller + 1)) / 2**count
        return McNemar(b, c, "exact binomial", float(smaller), min(1.0, 2 * tail))
    squared = max(abs(b - c) - 1, 0) ** 2 / count
    p_value = math.erfc(math.sqrt(squared / 2))
    return McNemar(b, c, "chi squared with continuity correction", squared, p_value)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A number of the second model minus that of the first.

    Args:
        value: the difference.
        interval: of it, by the paired bootstrap.
    """

    value: float
    interval: Interval


def differences(
    first: Answers, second: Answers, resamples: int, seed: int
) -> dict[str, Difference]:
    """Returns the differences of accuracy, macro F1 and loss.

    Args:
        first: answers of a model.
        second: those of another for the same images in the same order; its classes may be
            others or in another order.
        resamples: of the bootstrap.
        seed: of the draws.
    """
    columns = (first.labels, first.predicted, second.labels, second.predicted)
    kinds, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    before = Cells(kinds[:, 0], kinds[:, 1], first.classes)
    after = Cells(kinds[:, 2], kinds[:, 3], second.classes)
    statistics = {
        "accuracy": lambda draws: after.accuracy(draws) - before.accuracy(draws),
        "macro_f1": lambda draws: after.macro_f1(draws) - before.macro_f1(draws),
    }
    found = bootstrap.resampled(counts, statistics, resamples, seed)
    whole = counts[None]
    result = {
        name: Difference(float(statistic(whole)[0]), bootstrap.interval(found[name]))
        for name, statistic in statistics.items()
    }
    losses = second.losses - first.losses
    drawn = bootstrap.resampled_mean(losses, resamples, seed)
    return result | {"loss": Difference(float(losses.mean()), bootstrap.interval(drawn))}
