"""Distributes batches over the replicas of a strategy."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from keras_preact.data import Dataset, Shard


class UnreadableError(ValueError):
    """Images have become unreadable."""


def feed(
    strategy: tf.distribute.Strategy,
    make: Callable[[Shard], tf.data.Dataset],
    to_device: bool = True,
) -> Iterator:
    """Returns an iterator over global batches, split into a piece for each replica.

    Args:
        strategy: gives the replicas.
        make: makes the data set of a process from its shard.
        to_device: whether batches are copied to the devices ahead of their use. Indices stay on
            the host, where TensorFlow computes with int32.
    """

    def for_process(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return make(Shard(context.num_replicas_in_sync, context.input_pipeline_id * count, count))

    options = tf.distribute.InputOptions(experimental_fetch_to_device=to_device)
    return iter(strategy.distribute_datasets_from_function(for_process, options))


def feed_training(
    strategy: tf.distribute.Strategy, data: Dataset, batch_size: int, **options
) -> Iterator:
    """Distributes the batches of `Dataset.train`, which takes the options."""
    return feed(strategy, lambda shard: data.train(batch_size, shard=shard, **options))


def feed_evaluation(
    strategy: tf.distribute.Strategy, data: Dataset, batch_size: int
) -> tuple[Iterator, int]:
    """Distributes the batches of `Dataset.eval`; returns them and their number."""
    steps = -(-data.info.eval_count // batch_size)
    return feed(strategy, lambda shard: data.eval(batch_size, shard)), steps


@contextlib.contextmanager
def naming_unreadable(
    data: Dataset, split: str, indices: Callable[[], Iterable[int]]
) -> Iterator[None]:
    """Names the unreadable images if TensorFlow fails to read one within this context.

    Args:
        data: the data set of the batches.
        split: "train" or "eval".
        indices: returns the indices of the images that may have been read.

    Raises:
        UnreadableError: with the path of each of these images that cannot be read.
    """
    try:
        yield
    except tf.errors.OpError as error:
        lines = data.unreadable(split, indices())
        if not lines:
            raise
        listing = "\n".join(f"  {line}" for line in lines)
        raise UnreadableError(
            f"Every image of the data set must stay readable while it is used. Received:\n{listing}"
        ) from error
