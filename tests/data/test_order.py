"""The order of the training images."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.data.order import DRAWS, DataOrder, Shard

seeds = st.integers(0, 2**32)
counts = st.integers(1, 60)
# Up to three times the largest data set, so that one batch may hold several epochs.
batch_sizes = st.integers(1, 180)
steps = st.integers(0, 50)

examples = settings(max_examples=60, deadline=None)


def stream(count, batch_size, seed, length):
    """The first samples of a stream: indices (length,) and draws (length, DRAWS)."""
    order = DataOrder(count, batch_size, seed)
    batches = [order.batch(step) for step in range(-(-length // batch_size))]
    indices, draws = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return indices[:length], draws[:length]


@examples
@given(seeds, counts, batch_sizes)
def test_every_epoch_is_a_permutation_of_all_images(seed, count, batch_size):
    indices, _ = stream(count, batch_size, seed, 3 * count)
    for epoch in indices.reshape(3, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))


@examples
@given(seeds, counts, batch_sizes, steps)
def test_a_stream_from_a_step_on_is_the_rest_of_the_whole_stream(seed, count, batch_size, step):
    whole = DataOrder(count, batch_size, seed).batches()
    resumed = DataOrder(count, batch_size, seed).batches(step)
    for left, right in zip(itertools.islice(whole, step, step + 3), resumed, strict=False):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])


@examples
@given(seeds, counts, batch_sizes, batch_sizes)
def test_the_batch_size_does_not_change_the_sequence_of_samples(seed, count, one, other):
    length = 2 * count + 1
    left, right = stream(count, one, seed, length), stream(count, other, seed, length)
    np.testing.assert_array_equal(left[0], right[0])
    np.testing.assert_array_equal(left[1], right[1])


@examples
@given(seeds, counts, batch_sizes, steps)
def test_batches_are_full_and_typed_for_tensorflow(seed, count, batch_size, step):
    indices, draws = DataOrder(count, batch_size, seed).batch(step)
    assert indices.shape == (batch_size,)
    assert indices.dtype == np.int64
    assert draws.shape == (batch_size, DRAWS)
    assert draws.dtype == np.int32
    assert draws.min() >= 0


def test_an_image_has_the_draws_of_its_epoch_wherever_it_stands_in_a_batch():
    # Batches of 7 and of 25 cut ten images into epochs at different places.
    seen = {}
    for batch_size in (7, 25):
        indices, draws = stream(10, batch_size, seed=3, length=50)
        for position, (index, draw) in enumerate(zip(indices, draws, strict=True)):
            seen.setdefault((position // 10, int(index)), set()).add(tuple(draw.tolist()))
    assert len(seen) == 5 * 10
    assert all(len(draws) == 1 for draws in seen.values())
    # ... and no two of them are the same.
    assert len(set.union(*seen.values())) == 5 * 10


def test_steps_asked_for_in_any_order_are_the_same():
    # The cache holds two epochs only: going back must compute an epoch again.
    order = DataOrder(5, 3, seed=1)
    forward = [order.batch(step) for step in range(12)]
    for step in (11, 0, 7, 3, 11, 1):
        for again, first in zip(order.batch(step), forward[step], strict=True):
            np.testing.assert_array_equal(again, first)


def test_seeds_and_epochs_have_orders_and_draws_of_their_own():
    # 1000! orders: two of them agree by chance in about one image of 1,000.
    epochs = []
    for seed in (0, 1, 2, 2**40):
        indices, draws = stream(1000, 1000, seed, 2000)
        epochs += zip(np.split(indices, 2), np.split(draws, 2), strict=True)
    for (indices, draws), (others, other_draws) in itertools.combinations(epochs, 2):
        assert np.mean(indices == others) < 0.02
        assert np.mean(draws == other_draws) < 0.01


def test_an_order_is_shuffled_and_not_only_rotated():
    indices, _ = stream(1000, 1000, seed=0, length=1000)
    steps, occurrences = np.unique(np.diff(indices) % 1000, return_counts=True)
    # About 632 of 999 differences are distinct; a rotation or a stride has one.
    assert len(steps) > 500
    assert occurrences.max() < 12
    # The mean of the first half of a random order is 499.5, give or take 9.
    assert abs(indices[:500].mean() - 499.5) < 45


def test_draws_are_spread_evenly_over_31_bits():
    _, draws = stream(20_000, 20_000, seed=0, length=20_000)
    counts = np.stack([np.bincount(column >> 27, minlength=16) for column in draws.T])
    expected = 20_000 / 16
    # Chi-square with 15 degrees of freedom: 15 +- 5.5.
    assert counts.shape == (DRAWS, 16)
    assert (((counts - expected) ** 2 / expected).sum(axis=1) < 15 + 5 * 5.5).all()
    # The columns are independent: correlations of 20,000 pairs are 0 +- 0.007.
    correlation = np.corrcoef(draws.T)
    assert np.abs(correlation[~np.eye(DRAWS, dtype=bool)]).max() < 0.035


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_an_order_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match=r"must be at least (0|1)\. Received: "):
        DataOrder(*arguments)


@examples
@given(st.data())
def test_the_shares_of_all_processes_are_the_batch_in_its_order(data):
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    size = data.draw(st.integers(1, 5))
    replicas = sum(counts)
    batch = np.arange(replicas * size * 2).reshape(replicas * size, 2)
    pieces, first = [], 0
    for count in counts:
        shard = Shard(replicas, first, count)
        own = shard.pieces(batch)
        assert len(own) == count
        assert {len(piece) for piece in own} == {size} == {shard.piece_size(len(batch))}
        pieces += own
        first += count
    np.testing.assert_array_equal(np.concatenate(pieces), batch)


def test_by_default_one_replica_has_the_whole_batch():
    batch = np.arange(7)
    [piece] = Shard().pieces(batch)
    np.testing.assert_array_equal(piece, batch)
    assert Shard().piece_size(7) == 7


@pytest.mark.parametrize("arguments", [(0, 0, 0), (2, 0, 0), (2, -1, 1), (2, 1, 2), (2, 2, 1)])
def test_replicas_that_are_not_among_all_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be among the replicas\. Received: Shard"):
        Shard(*arguments)


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    with pytest.raises(ValueError, match=r"multiple of the 4 replicas\. Received: batch_size=6"):
        Shard(4, 2, 2).piece_size(6)
