"""Training and evaluation streams, spread over replicas and processes."""

import itertools

import numpy as np
import pytest

from keras_preact.data import Shard

pytestmark = pytest.mark.usefixtures("no_network")

# By process: (first, count) of its replicas.
processes = pytest.mark.parametrize(
    "shards", [[(0, 2)], [(0, 1), (1, 1)], [(0, 4)], [(0, 2), (2, 2)], [(0, 3), (3, 1)]]
)


def joined(streams, shards, steps):
    """For each step, the pieces of all processes one after the other, part by part."""
    taken = [iter(stream.as_numpy_iterator()) for stream in streams]
    for _ in range(steps):
        pieces = [
            next(t) for t, (_, count) in zip(taken, shards, strict=True) for _ in range(count)
        ]
        yield [np.concatenate(part) for part in zip(*pieces, strict=True)]


@processes
@pytest.mark.parametrize("name", ["digits", "photos"])
def test_the_pieces_of_all_replicas_are_the_batches_of_one(request, name, shards):
    dataset = request.getfixturevalue(name)
    all_shards = [Shard(sum(shards[-1]), *place) for place in shards]
    # The nine photos end, and begin anew, within each of these batches.
    options = {"seed": 5, "start_step": 3}
    pieces = [dataset.train(8, shard=shard, **options) for shard in all_shards]
    whole = itertools.islice(dataset.train(8, **options).as_numpy_iterator(), 3)
    for own, expected in zip(joined(pieces, shards, 3), whole, strict=True):
        for part, other in zip(own, expected, strict=True):
            np.testing.assert_array_equal(part, other)
    pieces = [dataset.eval(8, shard) for shard in all_shards]
    whole = list(dataset.eval(8).as_numpy_iterator())
    for own, expected in zip(joined(pieces, shards, len(whole)), whole, strict=True):
        for part, other in zip(own, expected, strict=True):
            np.testing.assert_array_equal(part, other)


def test_a_batch_that_replicas_cannot_share_evenly_is_refused(digits):
    for stream in (digits.train, digits.eval):
        with pytest.raises(ValueError, match="multiple of the 3 replicas"):
            stream(8, shard=Shard(3))
