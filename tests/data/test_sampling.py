"""How often training takes images of each class."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.data.order import DataOrder
from keras_preact.data.sampling import ClassSampler, groups_of

class_counts = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any)
samplings = st.sampled_from(["balanced", "sqrt"])
seeds = st.integers(0, 2**40)
examples = settings(max_examples=60, deadline=None)


def groups(counts, seed=0):
    """Classes of so many images each, in a random order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def share(counts, sampling):
    """The closed form."""
    sizes = np.array(counts, float)
    sizes = (sizes > 0) if sampling == "balanced" else np.sqrt(sizes)
    return sizes / sizes.sum()


def taken(sampler, epochs):
    return [sampler.images(epoch) for epoch in range(epochs)]


@examples
@given(class_counts, samplings, seeds, st.integers(1, 6))
def test_a_class_has_its_share_of_any_number_of_epochs_but_for_one_sample(
    counts, sampling, seed, epochs
):
    labels = groups(counts)
    images = taken(ClassSampler(labels, sampling, seed), epochs)
    assert [len(some) for some in images] == [len(labels)] * epochs
    found = np.bincount(labels[np.concatenate(images)], minlength=len(counts))
    expected = epochs * len(labels) * share(counts, sampling)
    # Square roots are rounded to a millionth.
    assert np.abs(found - expected).max() < 1 + 1e-3


@examples
@given(class_counts, samplings, seeds)
def test_no_image_comes_again_before_all_others_of_its_class(counts, sampling, seed):
    labels = groups(counts)
    images = np.concatenate(taken(ClassSampler(labels, sampling, seed), 4))
    for name, count in enumerate(counts):
        stream = images[labels[images] == name]
        for begin in range(0, len(stream), count or 1):
            part = stream[begin : begin + count]
            assert len(set(part.tolist())) == len(part)


@examples
@given(class_counts, samplings, seeds, st.integers(1, 40), st.integers(0, 30))
def test_a_stream_from_a_step_on_is_the_rest_of_the_whole(counts, sampling, seed, batch_size, step):
    labels = groups(counts)
    orders = [
        DataOrder(len(labels), batch_size, seed, (), ClassSampler(labels, sampling, seed))
        for _ in range(2)
    ]
    whole, resumed = orders[0].batches(), orders[1].batches(step)
    for left, right in zip(itertools.islice(whole, step, step + 3), resumed, strict=False):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])


@examples
@given(class_counts, samplings, seeds, st.integers(1, 40), st.integers(0, 12))
def test_a_reshuffle_leaves_what_was_seen_and_the_images_of_each_epoch(
    counts, sampling, seed, batch_size, step
):
    labels, steps = groups(counts), 20
    count = len(labels)
    (one, draws), (other, other_draws) = (
        DataOrder(count, batch_size, seed, reshuffles, ClassSampler(labels, sampling, seed)).batch(
            0, steps
        )
        for reshuffles in ((), (step,))
    )
    seen, whole = step * batch_size, len(one) // count * count
    np.testing.assert_array_equal(one[:seen], other[:seen])
    np.testing.assert_array_equal(draws[:seen], other_draws[:seen])
    assert not (draws[seen:] == other_draws[seen:]).all(axis=1).any()
    np.testing.assert_array_equal(
        *(np.sort(some[:whole].reshape(-1, count), axis=1) for some in (one, other))
    )


def test_an_image_that_comes_twice_in_an_epoch_has_other_random_integers_each_time():
    labels = groups([1, 99])
    order = DataOrder(100, 100, 3, (), ClassSampler(labels, "balanced", 3))
    images, draws = order.batch(0)
    assert np.bincount(labels[images]).tolist() == [50, 50]
    assert len({tuple(draw) for draw in draws.tolist()}) == 100


def test_epochs_and_seeds_have_orders_of_their_own():
    labels = groups([300, 700])
    epochs = [
        DataOrder(1000, 1000, seed, (), ClassSampler(labels, "sqrt", seed)).batch(step)[0]
        for seed, step in itertools.product((0, 1), (0, 1))
    ]
    for one, other in itertools.combinations(epochs, 2):
        assert np.mean(one == other) < 0.02


def test_a_class_is_not_cut_into_the_same_part_each_epoch():
    # 900 images share 500 samples of an epoch: after two epochs, all have come.
    labels = groups([100, 900])
    images = np.concatenate(taken(ClassSampler(labels, "balanced", 0), 2))
    assert set(np.flatnonzero(labels).tolist()) <= set(images.tolist())


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_a_single_image_beside_very_many_takes_no_time(sampling):
    labels = groups([1, 200_000])
    images = ClassSampler(labels, sampling, 0).images(7)
    expected = 200_001 * share([1, 200_000], sampling)[0]
    assert abs((labels[images] == 0).sum() - expected) <= 2


def test_shares_are_told_by_class():
    assert ClassSampler(groups([4, 0, 16]), "sqrt", 0).shares() == {0: 1 / 3, 2: 2 / 3}
    assert ClassSampler(groups([4, 0, 16]), "balanced", 0).shares() == {0: 0.5, 2: 0.5}


def test_an_image_of_several_labels_belongs_to_the_rarest_of_them():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1], [0, 1, 0]])
    # The classes have three, three and two images; one image has no label.
    assert groups_of(labels.astype(np.float32)).tolist() == [0, 0, 3, 2, 2, 1]
    assert groups_of(np.array([2, 0, 2], np.int32)).tolist() == [2, 0, 2]
