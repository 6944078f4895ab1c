"""Statistics of few runs: median and spread, an exact test of order, rank correlation."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

# A test below or at this is worth a sentence of its own; three runs against three reach it.
LEVEL = 0.05
# 5,040 orders of seven.
_MOST_EXACT = 7
_DRAWS = 9999


@dataclasses.dataclass(frozen=True)
class Spread:
    """Some values in short.

    Args:
        count: of the finite values.
        median: of all; infinite where half of them are.
        mean: of the finite ones; NaN without any.
        std: of the finite ones as a sample, with count - 1 in the denominator; NaN for one.
    """

    count: int
    median: float
    mean: float
    std: float


def spread(values: Sequence[float]) -> Spread:
    """The median and the spread of at least one value; infinite ones are highest."""
    finite = [value for value in values if math.isfinite(value)]
    return Spread(
        len(finite),
        median(values),
        float(np.mean(finite)) if finite else math.nan,
        float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan,
    )


def median(values: Sequence[float]) -> float:
    """The median; between a finite and an infinite value it is infinite."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    # NumPy's would be NaN between infinite values.
    if len(ordered) % 2 or ordered[middle - 1] == ordered[middle]:
        return float(ordered[middle])
    return float((ordered[middle - 1] + ordered[middle]) / 2)


def p_lower(low: Sequence[float], high: Sequence[float]) -> float:
    """The one-sided p-value of the exact Mann-Whitney test that `low` has the lower values.

    It is the share of all ways to divide the values into groups of these sizes that give the
    first group a sum of ranks at most that of `low`. Equal values have their mean rank, for which
    the share is exact too.
    """
    ranks = _doubled_ranks([*low, *high])
    reached = sum(ranks[: len(low)])
    # ways[n][s]: number of ways to choose n values whose doubled ranks sum up to s.
    ways = [[0] * (reached + 1) for _ in range(len(low) + 1)]
    ways[0][0] = 1
    for rank in ranks:
        for count in range(len(low), 0, -1):
            for total in range(reached, rank - 1, -1):
                ways[count][total] += ways[count - 1][total - rank]
    return sum(ways[-1]) / math.comb(len(ranks), len(low))


def least_p(count: int, other: int) -> float:
    """The lowest p-value that `p_lower` can have for groups of these sizes."""
    return 1 / math.comb(count + other, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number by Holm's method, in the same order.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[place]))
        corrected[place] = largest
    return corrected


def kendall(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Kendall's rank correlation of pairs of values, and how often chance alone reaches it.

    Returns:
        tau-b, NaN where a side has one value alone; and the one-sided p-value of a permutation
        test: exact up to `_MOST_EXACT` pairs, else from `_DRAWS` random orders, always the same.
    """
    signs = [np.sign(np.subtract.outer(ranks, ranks)) for ranks in map(_ranks, (one, other))]
    norm = math.sqrt(math.prod(float((sign**2).sum()) for sign in signs))
    if not norm:
        return math.nan, 1.0
    found = float((signs[0] * signs[1]).sum())
    reached = [
        (signs[0] * signs[1][np.ix_(order, order)]).sum() >= found for order in _orders(len(one))
    ]
    if len(one) <= _MOST_EXACT:
        return found / norm, float(np.mean(reached))
    # The measured order is one of the possible ones.
    return found / norm, (sum(reached) + 1) / (len(reached) + 1)


def _orders(count):
    if count <= _MOST_EXACT:
        return map(list, itertools.permutations(range(count)))
    random = np.random.default_rng(0)
    return (random.permutation(count) for _ in range(_DRAWS))


def _ranks(values):
    # Infinite values have no difference.
    return np.array(_doubled_ranks(values), np.float64)


def _doubled_ranks(values):
    """Twice the rank of each value, from 2; equal values have twice their mean rank."""
    return [
        2 * sum(other < value for other in values) + sum(other == value for other in values) + 1
        for value in values
    ]
