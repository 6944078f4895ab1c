"""Validation images that leave the training images of a set with a test split of its own."""

import collections
import itertools
import os
import pathlib

import numpy as np
import pytest
from image_encoding import encode
from sample_data import image_features, prepare_tfds, small_examples, smooth_image
from sklearn.datasets import load_digits

from keras_preact.data import Shard, datasets, tfds_source, validation
from keras_preact.data.sources import Encoded, InMemory

pytestmark = pytest.mark.usefixtures("no_network")


def bytes_of(images):
    return collections.Counter(image.tobytes() for image in images)


def photographs(count, seed):
    images = (smooth_image(30 + n, 50 - n, seed=100 * seed + n) for n in range(count))
    return [{"image": encode(image), "label": n % 2} for n, image in enumerate(images)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Sets of tensorflow-datasets: of one size in four files, and of any size."""
    root = tmp_path_factory.mktemp("prepared")
    small = {"train": small_examples(45), "test": small_examples(7, 1)}
    prepare_tfds(root, "small", small, image_features((6, 8, 3)), shards=4)
    photos = {"train": photographs(20, 0), "validation": photographs(6, 1)}
    prepare_tfds(root, "photos", photos, image_features((None, None, 3)), shards=2)
    both = {**small, "validation": small_examples(5, 2)}
    prepare_tfds(root, "both", both, image_features((6, 8, 3)))
    for path in pathlib.Path(root).rglob("*"):
        os.utime(path, (1e9, 1e9))  # a cache does not trust new files
    return str(root)


def test_validation_images_leave_training_and_the_own_split_becomes_the_test():
    bunch = load_digits()
    is_test = np.arange(len(bunch.target)) % 5 == 0
    digits = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    data = datasets.load("digits", validation_images=200)
    info = data.info
    assert (info.train_count, info.eval_count, info.test_count) == (1237, 200, 360)
    sources = [data.train_source, data.eval_source, data.test_source]
    train, evaluation, test = (source.images for source in sources)
    assert bytes_of(test) == bytes_of(digits[is_test])
    assert bytes_of([*train, *evaluation]) == bytes_of(digits[~is_test])
    # Normalized with what is left for training.
    np.testing.assert_allclose(info.mean, train.mean())
    np.testing.assert_allclose(info.std, train.std())
    assert data.for_test().info.eval_count == 360


def test_every_class_gives_its_share():
    data = datasets.load("digits", validation_images=200)
    bunch = load_digits()
    of_class = np.bincount(bunch.target[np.arange(len(bunch.target)) % 5 != 0])
    shares = of_class * 200 / of_class.sum()
    assert (abs(data.class_counts("eval") - shares) < 1).all()
    np.testing.assert_array_equal(data.class_counts("eval") + data.class_counts(), of_class)


@pytest.mark.parametrize("count", [5, 77, 250])
def test_a_draw_follows_from_labels_and_number_alone(count):
    labels = np.random.default_rng(3).integers(0, 5, 300) ** 2
    mask = validation.drawn(labels, count)
    assert mask.sum() == count
    np.testing.assert_array_equal(mask, validation.drawn(labels, count))
    shares = np.bincount(labels) * count / 300
    assert (abs(np.bincount(labels[mask], minlength=17) - shares) < 1).all()
    # Spread over the data set, not its first images.
    if count == 77:
        assert 100 < np.flatnonzero(mask).mean() < 200


def test_the_draw_of_this_version_is_that_of_all_versions():
    # Another draw would mix the images of runs that are resumed or compared.
    labels = np.arange(40) % 4
    expected = np.flatnonzero(validation.drawn(labels, 8)).tolist()
    keys = np.random.Philox(0).random_raw(40)
    smallest = (sorted(range(c, 40, 4), key=lambda n: keys[n])[:2] for c in range(4))
    assert expected == sorted(itertools.chain(*smallest))
    assert expected == [0, 8, 9, 18, 19, 26, 31, 37]


def test_a_set_in_memory_is_divided_alike_at_every_start(prepared):
    in_memory = datasets.load("small", data_dir=prepared, validation_images=9)
    assert isinstance(in_memory.train_source, InMemory)
    # A second start reads decoded images from the cache.
    again = datasets.load("small", data_dir=prepared, validation_images=9)
    assert in_memory.digests() == again.digests() and in_memory.info == again.info
    assert (in_memory.info.train_count, in_memory.info.test_count) == (36, 7)
    whole = datasets.load("small", data_dir=prepared)
    assert bytes_of(whole.train_source.images) == bytes_of(
        [*in_memory.train_source.images, *in_memory.eval_source.images]
    )
    assert whole.info.mean != in_memory.info.mean


def test_validation_images_of_files_are_their_own_crops_and_statistics_are_remembered(
    prepared, monkeypatch
):
    data = datasets.load("photos", data_dir=prepared, image_size=24, validation_images=6)
    assert isinstance(data.train_source, Encoded)
    assert (data.info.train_count, data.info.eval_count, data.info.test_count) == (14, 6, 6)
    whole = datasets.load("photos", data_dir=prepared, image_size=24)
    files = [
        collections.Counter(source.file(n) for n in range(len(source)))
        for source in (data.train_source, data.eval_source, whole.train_source)
    ]
    assert files[0] + files[1] == files[2]
    assert data.class_counts("train").sum() == 14 and data.class_counts("eval").sum() == 6
    crops = np.concatenate([x for x, _, _ in data.eval(6).as_numpy_iterator()])
    assert crops.shape == (6, 24, 24, 3)
    left = np.concatenate([x for x, _ in data.train(14, augmentation="none").take(1)])
    np.testing.assert_allclose(data.info.mean, left.mean(axis=(0, 1, 2)), rtol=1e-4)
    # Later starts know the statistics of both divisions.
    monkeypatch.setattr(Encoded, "eval_images", None)
    again = datasets.load("photos", data_dir=prepared, image_size=24, validation_images=6)
    assert again.info.mean == data.info.mean != whole.info.mean


def test_images_too_many_for_memory_leave_without_their_labels_being_read(prepared, monkeypatch):
    monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Encoded, "all_labels", None)
        data = datasets.load("small", data_dir=prepared, image_size=6, validation_images=9)
    assert (data.info.train_count, data.info.eval_count, data.info.test_count) == (36, 9, 7)
    assert data.class_counts("eval").sum() == 9


def test_every_replica_sees_its_part_of_the_validation_images():
    data = datasets.load("digits", validation_images=21)
    seen = []
    for replica in range(2):
        for images, _, weights in data.eval(8, Shard(2, replica)).as_numpy_iterator():
            seen += list(images[weights > 0])
    assert bytes_of(seen) == bytes_of(data.eval_source.images)


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("digits", 1437, "less than its 1,437 training images. Received: validation_images=1437"),
        ("digits", 9, "at least the 10 classes of digits"),
        ("digits", 0, "at least the 10 classes of digits"),
        ("digits", 1430, "leave a training image of each class of digits; "),
        ("both", 9, "brings a validation split of 5 images beside its test split"),
        ("folder", 9, "validation_images is for data sets that bring their splits"),
        ("csv", 9, "csv has split. Received: validation_images=9"),
    ],
)
def test_what_cannot_be_held_out_is_refused(prepared, name, count, words):
    with pytest.raises(ValueError, match=words):
        datasets.load(name, data_dir=prepared, validation_images=count)
