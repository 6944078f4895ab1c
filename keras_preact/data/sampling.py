"""How often training takes an image of each class."""

import functools
from fractions import Fraction
from math import isqrt

import numpy as np

SAMPLINGS = ("natural", "balanced", "sqrt")

# Images whose order within their class is drawn at a time, at least.
_BLOCK_IMAGES = 4096
# Square roots are rounded to this fraction.
_ROOT_SCALE = 2**20


def groups_of(labels: np.ndarray) -> np.ndarray:
    """Returns the group of each image, int64 (count,): its class.

    An image of several labels belongs to the one that fewest images have, the first of equals;
    images without a label make a group of their own, numbered after the classes.

    Args:
        labels: int32 (count,), or of several labels float32 (count, classes).
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    counts = labels.sum(axis=0, dtype=np.float64)
    rarity = np.where(labels > 0, counts, np.inf)
    return np.where(labels.any(axis=1), rarity.argmin(axis=1), labels.shape[1])


class ClassSampler:
    """Chooses the images of each epoch, so that classes come as often as the sampling says.

    An epoch has as many samples as there are images. "balanced" gives every class the same
    number of them, "sqrt" numbers in proportion to the square root of the class's images. These
    quotas are rounded so that after any number of epochs a class has had its exact share but for
    less than one sample. Within a class, images come in random permutations, one after the other
    across epochs: none comes again before all others of its class have come.

    The images of an epoch are a function of (seed, epoch) alone.

    Args:
        groups: the class of each image, int64 (count,), as `groups_of` returns them.
        sampling: "balanced" or "sqrt".
        seed: a whole number, at least 0.
    """

    def __init__(self, groups: np.ndarray, sampling: str, seed: int):
        names, counts = np.unique(groups, return_counts=True)
        order = np.argsort(groups, kind="stable")
        self._members = np.split(order, np.cumsum(counts)[:-1])
        self._groups, self._count, self._seed = names.tolist(), len(groups), seed
        shares = [1 if sampling == "balanced" else _root(int(count)) for count in counts]
        # Whole numbers: no machine rounds them otherwise.
        self._borders = np.cumsum([0, *shares]).tolist()
        self._block = functools.lru_cache(maxsize=64)(self._draw_block)

    def shares(self) -> dict[int, float]:
        """Returns the share of samples that each group has, in the long run."""
        sizes = np.diff(self._borders)
        return {
            group: float(Fraction(int(size), self._borders[-1]))
            for group, size in zip(self._groups, sizes, strict=True)
        }

    def images(self, epoch: int) -> np.ndarray:
        """Returns the images of an epoch, int64 (count,), class by class."""
        begins, ends = self._taken_before(epoch), self._taken_before(epoch + 1)
        bounds = zip(begins, ends, strict=True)
        return np.concatenate([self._stream(place, *both) for place, both in enumerate(bounds)])

    def _taken_before(self, epoch):
        """The samples of each group before an epoch."""
        samples, whole = epoch * self._count, self._borders[-1]
        return np.diff([samples * border // whole for border in self._borders]).tolist()

    def _stream(self, place, begin, end):
        """Samples begin to end - 1 of the endless stream of a group."""
        members = self._members[place]
        size = _passes(len(members)) * len(members)
        blocks = [
            self._block(place, block)[max(begin - block * size, 0) : end - block * size]
            for block in range(begin // size, -(-end // size))
        ]
        return np.concatenate(blocks) if blocks else members[:0]

    def _draw_block(self, place, block):
        """Some permutations of a group's images, one after the other."""
        members = self._members[place]
        key = [self._seed, self._groups[place], block]
        # Other keys than those of the order within an epoch, which have no fourth number.
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, 1])))
        rows = np.tile(members, (_passes(len(members)), 1))
        return generator.permuted(rows, axis=1).ravel()


def _passes(count):
    """Permutations in a block: few classes have few images, and seeding takes a while."""
    return max(1, _BLOCK_IMAGES // count)


def _root(count):
    return isqrt(count * _ROOT_SCALE**2)
