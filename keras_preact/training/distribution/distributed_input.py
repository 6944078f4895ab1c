"""Data sets, distributed over the replicas of a strategy."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from keras_preact.data import Dataset, Shard


class UnreadableError(ValueError):
    """Images that could be read before no longer can."""


def feed(strategy: tf.distribute.Strategy, make: Callable[[Shard], tf.data.Dataset]) -> Iterator:
    """An iterator whose elements hold a piece of the global batch for each replica.

    Args:
        strategy: over whose replicas to distribute.
        make: from the shard of a process, the data set of its pieces.
    """

    def for_process(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return make(Shard(context.num_replicas_in_sync, context.input_pipeline_id * count, count))

    return iter(strategy.distribute_datasets_from_function(for_process))


def feed_training(
    strategy: tf.distribute.Strategy, data: Dataset, batch_size: int, **options
) -> Iterator:
    """The training batches of `Dataset.train`, which takes options, distributed."""
    return feed(strategy, lambda shard: data.train(batch_size, shard=shard, **options))


def feed_evaluation(
    strategy: tf.distribute.Strategy, data: Dataset, batch_size: int
) -> tuple[Iterator, int]:
    """The batches of `Dataset.eval`, distributed, and their number."""
    steps = -(-data.info.eval_count // batch_size)
    return feed(strategy, lambda shard: data.eval(batch_size, shard)), steps


@contextlib.contextmanager
def naming_unreadable(
    data: Dataset, split: str, indices: Callable[[], Iterable[int]]
) -> Iterator[None]:
    """A context for steps over batches: where TensorFlow fails to read an image, it is named.

    Args:
        data: from which the batches are.
        split: "train" or "eval".
        indices: gives those of the images that may have been read.

    Raises:
        UnreadableError: naming all of these images that cannot be read.
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
