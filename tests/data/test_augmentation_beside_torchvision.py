"""Operations at every magnitude, and distributions of results, beside torchvision's."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sample_data import difference, smooth_image
from scipy.stats import ks_2samp

from keras_preact.data import augmentation, random_operations
from keras_preact.data.order import DataOrder
from keras_preact.data.random_operations import RAND_AUGMENT, TRIVIAL_AUGMENT, Context

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
    ),
]

HEIGHT, WIDTH, FILL = 32, 40, (121, 7, 200)
SAMPLES = 2000
# torchvision's float32 makes 15.999999 of 32 * 15 / 30 pixels, and cuts the fraction off.
ROUNDED_DOWN = {f"trivial/Translate{axis}/15/{sign}" for axis in "XY" for sign in (1, -1)}


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    smooth = smooth_image(HEIGHT, WIDTH, 1)
    return np.stack([noise, smooth, smooth // 3 + 40, np.full_like(noise, 77)])


@pytest.fixture(scope="module")
def theirs(images, tmp_path_factory):
    """torchvision's results: TensorFlow and it cannot live in one process."""
    folder = tmp_path_factory.mktemp("torchvision")
    np.savez(folder / "input.npz", images=images, fill=FILL)
    script = Path(__file__).with_name("torchvision_operations.py")
    subprocess.run(
        [sys.executable, str(script), folder / "input.npz", folder / "output.npz"], check=True
    )
    return dict(np.load(folder / "output.npz"))


def draws_of(count):
    return tf.constant(DataOrder(count, count, 0).batch(0)[1])


def test_every_operation_at_every_magnitude_is_torchvisions(images, theirs):
    context = Context(tf.constant(FILL, tf.uint8))
    names = [name for name in theirs if name.startswith(("rand/", "trivial/"))]
    assert len(names) > 2 * 31 * 2 * 9
    for name in names:
        if name in ROUNDED_DOWN:
            continue
        policy, kind, magnitude, sign = name.split("/")
        ranges = RAND_AUGMENT if policy == "rand" else TRIVIAL_AUGMENT
        share = int(sign) * int(magnitude) / 30
        change = random_operations._change(kind, share, ranges, HEIGHT, WIDTH)
        table = tf.constant(np.tile(change, (len(images), 1)))
        result = random_operations._changed(tf.constant(images), table, context).numpy()
        # Pillow rounds factors to float32 before it cuts fractions off.
        assert difference(result, theirs[name]).max() <= 1, name


@pytest.mark.parametrize(
    "name", ["rand_augment=9", "trivial_augment", "color_jitter=0.4", "hue_jitter=0.2"]
)
def test_results_have_torchvisions_mean_and_deviation(images, theirs, name):
    batch = tf.constant(np.broadcast_to(images[1], (SAMPLES, HEIGHT, WIDTH, 3)))
    ours = augmentation.augmented(batch, draws_of(SAMPLES), f"none,{name}", FILL, dense=False)
    ours, of_theirs = ours.numpy().astype(float), theirs[name].astype(float)
    # Of each pixel, over all samples: means within 5 standard errors of the difference. Pillow
    # keeps hues as bytes, which moves colours by up to a level.
    rounding = 1 if name.startswith("hue") else 0
    errors = np.sqrt((ours.var(axis=0) + of_theirs.var(axis=0)) / SAMPLES)
    away = np.abs(ours.mean(axis=0) - of_theirs.mean(axis=0)) - rounding
    assert (away / np.maximum(errors, 0.05)).max() < 5
    deviations = ours.std(axis=0).mean(), of_theirs.std(axis=0).mean()
    assert abs(deviations[0] / deviations[1] - 1) < 0.05
    # Of each image, its mean and its contrast.
    for statistic in (np.mean, np.std):
        samples = [statistic(each, axis=(1, 2, 3)) for each in (ours, of_theirs)]
        assert ks_2samp(*samples).pvalue > 1e-4


def test_erased_rectangles_are_distributed_as_torchvisions(theirs):
    black = tf.zeros([SAMPLES, 40, 40, 3], tf.uint8)
    ours = augmentation.augmented(black, draws_of(SAMPLES), "none,random_erasing=0.7", (1, 1, 1))
    ours, of_theirs = ours.numpy()[..., 0], theirs["erased"]
    shares = [each.any(axis=(1, 2)).mean() for each in (ours, of_theirs)]
    assert max(abs(share - 0.7) for share in shares) < 5 * np.sqrt(0.21 / SAMPLES)
    for measure in (heights, widths, tops, lefts):
        samples = [measure(each[each.any(axis=(1, 2))]) for each in (ours, of_theirs)]
        assert ks_2samp(*samples).pvalue > 1e-4


def heights(images):
    return images.any(axis=2).sum(axis=1)


def widths(images):
    return images.any(axis=1).sum(axis=1)


def tops(images):
    return images.any(axis=2).argmax(axis=1)


def lefts(images):
    return images.any(axis=1).argmax(axis=1)
