"""The order of the training images: a function of (seed, reshuffles, step) alone."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from keras_preact.data.sampling import ClassSampler

# Random 31-bit integers that each image gets in each epoch, for augmentation.
DRAWS = 4


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every global batch that one process computes.

    A global batch is cut into as many consecutive pieces as there are replicas, so that
    what a step computes does not depend on their number.

    Args:
        replicas: over all processes.
        first: the first of this process.
        count: replicas of this process.

    Raises:
        ValueError: if these replicas are not among all.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1

    def __post_init__(self):
        if not (self.first >= 0 and 1 <= self.count <= self.replicas - self.first):
            raise ValueError(f"first to first + count must be among the replicas. Received: {self}")

    def piece_size(self, batch_size: int) -> int:
        """Images that one replica computes in a step.

        Raises:
            ValueError: if batch_size is no multiple of the replicas.
        """
        if batch_size % self.replicas:
            raise ValueError(
                f"batch_size must be a multiple of the {self.replicas} replicas. "
                f"Received: batch_size={batch_size}"
            )
        return batch_size // self.replicas

    def pieces(self, batch: np.ndarray) -> list[np.ndarray]:
        """This process's pieces of a global batch (batch_size, ...)."""
        return np.split(batch, self.replicas)[self.first : self.first + self.count]


class DataOrder:
    """An endless stream of images, in which every epoch is a permutation of all of them.

    Batches follow one another without a gap: one that reaches the end of an epoch
    takes the rest from the next, so no image is dropped and every batch is full.
    Sample p of the stream belongs to epoch p // count, and step s holds samples
    s * batch_size to (s + 1) * batch_size - 1, so any step is found without going
    through those before it.

    A run that was rolled back to a checkpoint reshuffles there: the images it had not seen
    by then come in another order, with other random integers. Every epoch remains a
    permutation; of the epoch under way only the rest is permuted.

    With a sampler, an epoch holds the images that it chooses, some of them several times, each
    time with other random integers.

    Args:
        count: number of training images.
        batch_size: images in a step.
        seed: a whole number, at least 0; another seed is another stream.
        reshuffles: steps in ascending order, at each of which the rest is drawn anew; a step
            given twice is drawn anew twice.
        sampler: chooses the images of each epoch; by default each is taken once.

    Raises:
        ValueError: if one of them is below its least value, or reshuffles do not ascend.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        reshuffles: Sequence[int] = (),
        sampler: ClassSampler | None = None,
    ):
        for name, value, least in (
            ("count", count, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.reshuffles = _check_reshuffles(reshuffles)
        self._sampler = sampler
        # Two epochs: a batch may lie across their border.
        self._epoch = functools.lru_cache(maxsize=2)(self._compute_epoch)

    def batch(self, step: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The images of a step, or of several, one after the other.

        Returns:
            Indices into the data set, int64 (steps * batch_size,), and the random integers
            of each image, int32 (steps * batch_size, DRAWS), a function of (seed, epoch, index)
            and the earlier reshuffles; with a sampler, of (seed, epoch, place in the epoch).
        """
        positions = np.arange(step * self.batch_size, (step + steps) * self.batch_size)
        epochs = positions // self.count
        indices, draws = [], []
        for epoch in np.unique(epochs):
            order, epoch_draws = self._epoch(int(epoch))
            places = positions[epochs == epoch] % self.count
            indices.append(order[places])
            draws.append(epoch_draws[places])
        return np.concatenate(indices), np.concatenate(draws)

    def batches(self, start_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches from start_step on, without end."""
        step = start_step
        while True:
            yield self.batch(step)
            step += 1

    def _compute_epoch(self, epoch):
        offsets = [step * self.batch_size - epoch * self.count for step in self.reshuffles]
        # The last reshuffle before an epoch replaces all earlier ones.
        before = sum(offset <= 0 for offset in offsets)
        images = self._sampler.images(epoch) if self._sampler else np.arange(self.count)
        order, draws = self._draw(images, epoch, before)
        for reshuffle, offset in enumerate(offsets[before:], before + 1):
            order[offset:], draws[offset:] = self._draw(order[offset:], epoch, reshuffle)
        return order, draws

    def _draw(self, images, epoch, reshuffle):
        """Permutes the images; draws random integers, which each takes to its new place."""
        key = [self.seed, epoch, reshuffle] if reshuffle else [self.seed, epoch]
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        places = generator.permutation(len(images))
        draws = generator.integers(0, 2**31 - 1, size=(len(images), DRAWS), dtype=np.int32)
        return images[places], draws[places]


def _check_reshuffles(reshuffles):
    reshuffles = tuple(reshuffles)
    if reshuffles != tuple(sorted(reshuffles)) or any(step < 0 for step in reshuffles):
        raise ValueError(
            "reshuffles must be steps of at least 0 in ascending order. "
            f"Received: reshuffles={reshuffles}"
        )
    return reshuffles
