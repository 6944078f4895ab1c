"""Runs that are stopped and resumed, and runs that are rolled back to a checkpoint."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.data.order import DRAWS, DataOrder, Shard

# SHA-256 of the first 20 batches of 128 of 1,000 images, recorded before there were reshuffles.
DIGEST = "445172dcbf7ef49bbecd50c1c09f05f3451e768d65e79af069226504cecd0db7"

examples = settings(max_examples=80, deadline=None)


@st.composite
def orders(draw, least_reshuffles=0):
    """Draws the arguments of a `DataOrder`, and the steps of about three epochs."""
    count = draw(st.integers(1, 40))
    batch_size = draw(st.sampled_from([1, 2, 4, 6, 12, 24]))
    steps = -(-3 * count // batch_size)
    some = st.lists(st.integers(0, steps), min_size=least_reshuffles, max_size=4)
    seed = draw(st.integers(0, 2**40))
    return (count, batch_size, seed, tuple(sorted(draw(some)))), steps


def sequence(order, steps):
    """Indices (samples,) and draws (samples, DRAWS) of these steps."""
    indices, draws = zip(*map(order.batch, steps), strict=True)
    return np.concatenate(indices), np.concatenate(draws)


def of_all_processes(order, step, shards):
    """A step's indices and draws, as the processes of a run get them, one after the other."""
    parts = [[piece for shard in shards for piece in shard.pieces(p)] for p in order.batch(step)]
    return tuple(map(np.concatenate, parts))


@st.composite
def processes(draw, batch_size):
    """Draws the shards of a run's processes; replicas divide the batch, processes the replicas."""
    replicas = draw(st.sampled_from([n for n in range(1, batch_size + 1) if batch_size % n == 0]))
    borders = sorted(draw(st.sets(st.integers(1, replicas - 1)))) if replicas > 1 else []
    begins, ends = [0, *borders], [*borders, replicas]
    return [Shard(replicas, first, end - first) for first, end in zip(begins, ends, strict=True)]


@examples
@given(st.data(), orders())
def test_a_run_resumed_on_other_replicas_sees_what_an_uninterrupted_one_sees(data, case):
    arguments, steps = case
    stops = data.draw(st.sets(st.integers(0, steps), max_size=4))
    borders = [0, *sorted(stops), steps]
    seen = []
    for first, end in itertools.pairwise(borders):
        # Every start of the program makes its own order, without the earlier ones.
        order, shards = DataOrder(*arguments), data.draw(processes(arguments[1]))
        seen += [of_all_processes(order, step, shards) for step in range(first, end)]
    whole = DataOrder(*arguments).batches()
    assert len(seen) == steps
    for parts, expected in zip(seen, whole, strict=False):
        np.testing.assert_array_equal(parts[0], expected[0])
        np.testing.assert_array_equal(parts[1], expected[1])


@examples
@given(orders())
def test_every_epoch_is_a_permutation_whatever_the_reshuffles(case):
    (count, *others), steps = case
    indices, draws = sequence(DataOrder(count, *others), range(steps))
    for epoch in indices[: 3 * count].reshape(3, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
    assert draws.shape == (len(indices), DRAWS)
    assert draws.dtype == np.int32
    assert draws.min() >= 0


def draws_by_image(indices, draws, count, begin):
    """{(epoch, index): draws} of the samples from the given one on."""
    samples = enumerate(zip(indices.tolist(), draws.tolist(), strict=True))
    return {(n // count, index): draw for n, (index, draw) in samples if n >= begin}


@examples
@given(orders(least_reshuffles=1))
def test_a_restart_leaves_what_was_seen_and_draws_the_rest_anew(case):
    (count, batch_size, seed, reshuffles), steps = case
    without, with_it = (
        sequence(DataOrder(count, batch_size, seed, some), range(steps + 1))
        for some in (reshuffles[:-1], reshuffles)
    )
    seen = reshuffles[-1] * batch_size
    for left, right in zip(without, with_it, strict=True):
        np.testing.assert_array_equal(left[:seen], right[:seen])
    # The order of a few images may be the same by chance, their draws are not.
    one, other = (draws_by_image(*run, count, seen) for run in (without, with_it))
    assert one
    assert not any(one[image] == other[image] for image in one.keys() & other.keys())


def test_a_restart_changes_the_order_of_the_rest_of_its_epoch_and_of_later_ones():
    # 1,000 images, reshuffled in the middle of the second epoch.
    first, second = (
        sequence(DataOrder(1000, 100, 1, reshuffles), range(30))[0] for reshuffles in ((), (15,))
    )
    np.testing.assert_array_equal(first[:1500], second[:1500])
    for part in (slice(1500, 2000), slice(2000, 3000)):
        assert np.mean(first[part] == second[part]) < 0.02
    # The same images are left of the epoch under way.
    assert set(first[1500:2000]) == set(second[1500:2000])


def test_reshuffles_at_one_step_have_orders_of_their_own():
    parts = []
    for reshuffles in ((), (5,), (5, 5), (5, 5, 5)):
        indices, _ = sequence(DataOrder(1000, 100, 1, reshuffles), range(5, 30))
        parts.append(np.split(indices, [500, 1500]))
    for one, other in itertools.combinations(parts, 2):
        for left, right in zip(one, other, strict=True):
            assert np.mean(left == right) < 0.02


def test_an_epoch_after_a_restart_is_numpys_permutation_of_seed_epoch_and_restart():
    # Five steps an epoch: the reshuffles come within the first and where the third begins.
    order = DataOrder(50, 10, 3, (2, 10))
    for epoch, restart in ((1, 1), (2, 2), (3, 2)):
        seeds = np.random.SeedSequence([3, epoch, restart])
        generator = np.random.Generator(np.random.Philox(seeds))
        indices, draws = sequence(order, range(5 * epoch, 5 * epoch + 5))
        np.testing.assert_array_equal(indices, generator.permutation(50))
        by_image = generator.integers(0, 2**31 - 1, size=(50, DRAWS), dtype=np.int32)
        np.testing.assert_array_equal(draws, by_image[indices])


def test_the_rest_of_an_epoch_after_a_restart_is_numpys_permutation_of_it():
    # The third epoch begins at step 10, with the second reshuffle.
    seen, _ = sequence(DataOrder(50, 10, 3, (2, 10)), range(10, 15))
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, 2, 3])))
    indices, draws = sequence(DataOrder(50, 10, 3, (2, 10, 12)), range(12, 15))
    np.testing.assert_array_equal(indices, generator.permutation(seen[20:]))
    # The random integers are dealt out in the order before the reshuffle.
    dealt = generator.integers(0, 2**31 - 1, size=(30, DRAWS), dtype=np.int32)
    expected = dict(zip(seen[20:].tolist(), dealt.tolist(), strict=True))
    assert draws.tolist() == [expected[index] for index in indices.tolist()]


def test_a_run_without_reshuffles_has_the_order_it_always_had():
    # Runs begun with earlier versions continue in their order.
    indices, _ = sequence(DataOrder(7, 3, 5), range(5))
    assert indices.tolist() == [0, 1, 4, 2, 6, 3, 5, 0, 5, 1, 3, 6, 2, 4, 6]
    digest = hashlib.sha256()
    for batch in itertools.islice(DataOrder(1000, 128, 2**40 + 1).batches(), 20):
        digest.update(
            b"".join(part.astype(part.dtype.newbyteorder("<")).tobytes() for part in batch)
        )
    assert digest.hexdigest() == DIGEST


def test_reshuffles_of_another_batch_size_at_the_same_sample_are_the_same():
    one = sequence(DataOrder(35, 4, 1, (3, 12)), range(30))
    other = sequence(DataOrder(35, 2, 1, (6, 24)), range(60))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("reshuffles", [(-1,), (5, 3), (0, 2, 1), [4, -4]])
def test_reshuffles_that_do_not_ascend_from_0_are_refused(reshuffles):
    with pytest.raises(ValueError, match=r"at least 0 in ascending order\. Received: reshuffles="):
        DataOrder(10, 2, 0, reshuffles)
