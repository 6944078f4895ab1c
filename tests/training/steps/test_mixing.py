"""Mixup and CutMix against their definitions in NumPy."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_preact.training.steps.mixing import box_mixture, draw, mix, mixing_weight


def test_mixing_pairs_each_image_with_its_mirror_place():
    values = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    mixed = mix(tf.constant(values), tf.constant(0.25)).numpy()
    for place in range(5):
        expected = 0.25 * values[place].astype(np.float64) + 0.75 * values[4 - place]
        np.testing.assert_allclose(mixed[place], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mix(tf.constant(values), tf.constant(1.0)), values)


def draws(alpha, count, first_seed=0, xla=False):
    @tf.function(jit_compile=xla)
    def draw():
        numbers = tf.range(first_seed, first_seed + count)
        seeds = tf.stack([tf.fill([count], 5), numbers], axis=1)
        weigh = lambda seed: mixing_weight(alpha, seed)  # noqa: E731
        return tf.map_fn(weigh, seeds, fn_output_signature=tf.float32)

    return draw().numpy().astype(np.float64)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4, 1.0, 8.0])
def test_the_weight_of_a_mixture_follows_the_beta_distribution(alpha, xla):
    count = 4000
    weights = draws(alpha, count, xla=xla)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 4.5 * np.sqrt(variance / count)
    # The variance of a sample's variance follows from the kurtosis, 3 - 6 / (2a + 3).
    error = variance * np.sqrt((2 - 6 / (2 * alpha + 3)) / count)
    assert abs(weights.var() - variance) < 4.5 * error
    # One distribution function in a million is off by more (Dvoretzky, Kiefer and Wolfowitz).
    # Nearer to 1, float32 would round.
    places = np.linspace(0.001, 0.999, 500)
    found = (weights[:, None] <= places).mean(axis=0)
    expected = scipy.stats.beta(alpha, alpha).cdf(places)
    assert np.abs(found - expected).max() < np.sqrt(np.log(2e6) / (2 * count))


def test_a_seed_gives_one_weight_and_other_seeds_give_others():
    first = draws(0.4, 300)
    np.testing.assert_array_equal(first, draws(0.4, 300))
    assert len(np.unique(first)) > 290
    assert abs(np.corrcoef(first, draws(0.4, 300, first_seed=300))[0, 1]) < 0.25


def test_a_tiny_alpha_mixes_next_to_nothing():
    weights = draws(1e-4, 400)
    # One image of each pair remains, either of them.
    assert np.minimum(weights, 1 - weights).max() < 1e-3
    assert 140 < weights.sum() < 260


def seeds(count, first=0):
    return tf.stack([tf.fill([count], 5), tf.range(first, first + count)], axis=1)


def boxes(weight, count, shape, xla=False):
    """Draws CutMix's mixtures: pixels (count, height, width) and labels (count,)."""

    @tf.function(jit_compile=xla)
    def draw_all():
        return tf.map_fn(
            lambda seed: tuple(box_mixture(tf.constant(weight), seed, (*shape, 3))),
            seeds(count),
            fn_output_signature=(tf.float32, tf.float32),
        )

    pixels, labels = draw_all()
    return pixels.numpy()[..., 0], labels.numpy()


def box_in_numpy(weight, centre, shape):
    """The box of timm's rand_bbox: zeros within, ones around."""
    pixels = np.ones(shape, np.float32)
    ends = []
    for middle, length in zip(centre, shape, strict=True):
        cut = int(length * np.sqrt(np.float32(1 - weight)))
        ends.append((max(middle - cut // 2, 0), min(middle + (cut + 1) // 2, length)))
    (top, bottom), (left, right) = ends
    pixels[top:bottom, left:right] = 0
    return pixels


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(("weight", "shape"), [(0.7, (8, 8)), (0.4, (9, 14)), (0.02, (6, 5))])
def test_a_box_has_the_place_and_the_area_of_the_paper(weight, shape, xla):
    pixels, labels = boxes(weight, 400, shape, xla)
    every = {box_in_numpy(weight, centre, shape).tobytes(): centre for centre in np.ndindex(*shape)}
    found = [each.tobytes() for each in pixels]
    assert set(found) <= every.keys()
    # The share in the label is that of the pixels that are left.
    np.testing.assert_allclose(labels, pixels.mean(axis=(1, 2)), atol=1e-6)


def test_the_centre_of_a_box_is_uniform():
    # A box of one pixel is its centre.
    pixels, _ = boxes(1 - 0.36**2, 3600, (3, 4))
    counts = (1 - pixels).sum(axis=0)
    assert counts.sum() == 3600
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_the_share_in_the_label_is_distributed_as_in_a_loop_of_numpys(alpha):
    count, shape, rng = 3000, (12, 9), np.random.default_rng(0)

    @tf.function
    def draw_all():
        share = lambda seed: draw(0.0, alpha, seed, (*shape, 3)).labels  # noqa: E731
        return tf.map_fn(share, seeds(count), fn_output_signature=tf.float32)

    expected = [
        box_in_numpy(rng.beta(alpha, alpha), [rng.integers(length) for length in shape], shape)
        for _ in range(10 * count)
    ]
    shares = np.round([pixels.mean() for pixels in expected], 4)
    assert scipy.stats.ks_2samp(np.round(draw_all(), 4), shares).pvalue > 1e-4


@pytest.mark.parametrize(("weight", "part"), [(0.0, 0), (1.0, 1)])
def test_a_weight_of_0_or_1_leaves_one_of_the_two(weight, part):
    pixels, labels = boxes(weight, 20, (8, 8))
    if part:
        assert pixels.all() and (labels == 1).all()
    else:
        # A box as large as the image is clipped unless its centre is the image's.
        assert labels.max() < 0.8


def images_and_mixture(mixup_alpha, cutmix_alpha, number):
    images = np.random.default_rng(0).normal(size=(6, 8, 9, 3)).astype(np.float32)
    mixture = draw(mixup_alpha, cutmix_alpha, tf.constant([3, number]), (8, 9, 3))
    return images, mixture, mix(tf.constant(images), mixture.pixels).numpy()


def test_cutmix_shows_the_partner_within_the_box_and_the_image_around_it():
    for number in range(8):
        images, mixture, mixed = images_and_mixture(0.0, 1.0, number)
        around = mixture.pixels.numpy()[..., 0] == 1
        np.testing.assert_array_equal(mixed[:, around], images[:, around])
        np.testing.assert_array_equal(mixed[:, ~around], images[::-1][:, ~around])
        assert 0 <= mixture.labels <= 1


def test_with_both_half_of_the_batches_are_cut_and_the_others_mixed():
    cut = 0
    for number in range(400):
        mixture = draw(0.3, 0.8, tf.constant([3, number]), (8, 9, 3))
        pixels = mixture.pixels.numpy()
        if np.isin(pixels, (0, 1)).all():
            cut += 1
            assert float(mixture.labels) == pytest.approx(pixels.mean(), abs=1e-6)
        else:
            assert pixels.min() == pixels.max() == float(mixture.labels)
            alone = draw(0.3, 0.0, tf.constant([3, number]), (8, 9, 3))
            assert float(alone.labels) == float(mixture.labels)
    assert 150 < cut < 250


def test_without_alphas_nothing_is_mixed():
    assert draw(0.0, 0.0, tf.constant([0, 0]), (8, 8, 1)) is None
