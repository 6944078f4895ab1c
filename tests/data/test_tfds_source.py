"""Data sets prepared by tensorflow-datasets, against its own reader."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sample_data import (
    difference,
    encode,
    image_features,
    pillow_center_crop,
    prepare_tfds,
    small_examples,
    smooth_image,
)

from keras_preact.data import datasets, tfds_source
from keras_preact.data.sources import Encoded, InMemory

pytestmark = pytest.mark.usefixtures("no_network")


def photo_examples(count, seed=0):
    """Photos of different sizes, as JPEG and PNG files."""
    images = (smooth_image(30 + 7 * n, 90 - 5 * n, seed=100 * seed + n) for n in range(count))
    return [
        {"image": encode(image, "JPEG" if n % 3 else "PNG"), "label": n % 2}
        for n, image in enumerate(images)
    ]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three prepared sets: of one size, of one size in several files, of any size."""
    root = tmp_path_factory.mktemp("prepared")
    fixed, free = image_features((6, 8, 3)), image_features((None, None, 3))
    prepare_tfds(root, "small", {"train": small_examples(23), "test": small_examples(7, 1)}, fixed)
    prepare_tfds(root, "sharded", {"train": small_examples(45)}, fixed, shards=4)
    photos = {"train": photo_examples(8), "validation": photo_examples(3, seed=1)}
    prepare_tfds(root, "photos", photos, free, shards=2)
    return root


def read_by_tfds(data_dir, name, split):
    """TFDS's own reading of a split, one file after another."""
    builder = tfds.builder_from_directory(data_dir / name / "1.0.0")
    dataset = builder.as_dataset(
        split=split,
        as_supervised=True,
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return list(images), list(labels)


def images_and_labels(source):
    fetched = source.eval_images(tf.data.Dataset.from_tensor_slices(np.arange(len(source))))
    images, labels = zip(*fetched.as_numpy_iterator(), strict=True)
    return list(images), list(labels)


def test_images_of_one_size_are_what_tfds_reads(data_dir):
    dataset = datasets.load("small", data_dir=str(data_dir))
    for source, split in ((dataset.train_source, "train"), (dataset.eval_source, "test")):
        assert isinstance(source, InMemory)
        images, labels = read_by_tfds(data_dir, "small", split)
        np.testing.assert_array_equal(source.images, images)
        np.testing.assert_array_equal(source.labels, labels)
        assert (source.images.dtype, source.labels.dtype) == (np.uint8, np.int32)


def test_a_description_of_a_prepared_set(data_dir):
    info = datasets.load("small", data_dir=str(data_dir)).info
    assert (info.name, info.class_names) == ("small", ("ant", "bee"))
    assert (info.image_shape, info.train_count, info.eval_count) == ((6, 8, 3), 23, 7)
    pixels = np.stack([example["image"] for example in small_examples(23)]).reshape(-1, 3)
    np.testing.assert_allclose(info.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(info.std, pixels.std(axis=0), rtol=1e-9)


def assert_crops_of_what_tfds_reads(source, data_dir, name, split):
    assert isinstance(source, Encoded)
    originals, labels = read_by_tfds(data_dir, name, split)
    images, own_labels = images_and_labels(source)
    assert own_labels == labels
    for image, original in zip(images, originals, strict=True):
        assert difference(image, pillow_center_crop(original, 24)).max() <= 1


def test_images_of_any_size_are_tfds_own_images_cropped(data_dir):
    dataset = datasets.load("photos", data_dir=str(data_dir), image_size=24)
    assert dataset.info.image_shape == (24, 24, 3)
    assert_crops_of_what_tfds_reads(dataset.train_source, data_dir, "photos", "train")
    assert_crops_of_what_tfds_reads(dataset.eval_source, data_dir, "photos", "validation")


def test_images_of_one_size_too_many_for_memory_are_read_as_files(data_dir, monkeypatch):
    monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    loaded = tfds_source.load("small", str(data_dir), 24)
    train, evaluation = loaded.train, loaded.evaluation
    assert_crops_of_what_tfds_reads(train, data_dir, "small", "train")
    assert_crops_of_what_tfds_reads(evaluation, data_dir, "small", "test")


def test_both_splits_have_images_of_one_size_where_only_one_split_fits_in_memory(
    data_dir, monkeypatch
):
    monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 10 * 6 * 8 * 3)  # 7 images fit, 23 do not
    dataset = datasets.load("small", data_dir=str(data_dir))
    (images, _), (evaluation, _, _) = (next(iter(s)) for s in (dataset.train(4), dataset.eval(4)))
    assert images.shape == evaluation.shape == (4, *dataset.info.image_shape)


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_tenth_training_image_is_held_out_where_there_is_no_other_split(
    data_dir, monkeypatch, in_memory
):
    if not in_memory:
        monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    loaded = tfds_source.load("sharded", str(data_dir), 24)
    train, evaluation = loaded.train, loaded.evaluation
    originals, labels = read_by_tfds(data_dir, "sharded", "train")
    held_out = [0, 10, 20, 30, 40]
    for source, numbers in ((evaluation, held_out), (train, set(range(45)) - set(held_out))):
        images, own_labels = images_and_labels(source)
        assert own_labels == [labels[n] for n in sorted(numbers)]
        for image, number in zip(images, sorted(numbers), strict=True):
            original = originals[number]
            expected = original if in_memory else pillow_center_crop(original, 24)
            assert difference(image, expected).max() <= 1


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [(("train", "test", "validation"), "validation"), (("train", "test"), "test")],
)
def test_validation_is_preferred_to_test_for_evaluation(tmp_path, splits, chosen):
    # Splits of 4, 5 and 6 images.
    examples = {split: small_examples(4 + n, n) for n, split in enumerate(splits)}
    prepare_tfds(tmp_path, "some", examples, image_features((6, 8, 3)))
    loaded = tfds_source.load("some", str(tmp_path), 24)
    train, evaluation = loaded.train, loaded.evaluation
    assert len(train) == 4
    np.testing.assert_array_equal(evaluation.images, read_by_tfds(tmp_path, "some", chosen)[0])


def test_the_newest_prepared_version_is_read(tmp_path):
    # By number: 1.10.0 is newer than 1.9.0.
    for version, count in (("1.9.0", 3), ("1.10.0", 5)):
        examples = {"train": small_examples(count), "test": small_examples(2)}
        prepare_tfds(tmp_path, "some", examples, image_features((6, 8, 3)), version=version)
    assert len(tfds_source.load("some", str(tmp_path), 24).train) == 5


@pytest.mark.parametrize(
    ("name", "default"),
    [("svhn_cropped", "pad_crop"), ("emnist/letters", "pad_crop"), ("cifar10", "pad_crop_flip")],
)
def test_digits_and_letters_are_not_mirrored_by_default(data_dir, tmp_path, name, default):
    # TFDS keeps a configuration, "letters", in a folder between the name and the version.
    prepared = tmp_path / name / "1.0.0"
    shutil.copytree(data_dir / "small" / "1.0.0", prepared)
    base = name.partition("/")[0]
    description = prepared / "dataset_info.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"name": base}))
    for path in prepared.glob("small-*"):
        path.rename(prepared / path.name.replace("small", base))
    dataset = datasets.load(name, data_dir=str(tmp_path))
    assert dataset.check_augmentation(None) == default
    assert dataset.info.name == name


def test_another_size_than_that_of_a_sets_images_is_refused(data_dir):
    with pytest.raises(ValueError, match=r"small, whose images are 6x8\. Received: image_size=24"):
        datasets.load("small", data_dir=str(data_dir), image_size=24)


@pytest.mark.parametrize("path", [".", "small", "small/1.0.0"])
def test_the_folder_of_a_set_or_of_its_version_may_be_given_itself(data_dir, path):
    assert datasets.load("small", data_dir=str(data_dir / path)).info.train_count == 23


@pytest.fixture(scope="module")
def of_three_splits(tmp_path_factory):
    """Prepared sets with validation and test, of one size and of any size."""
    root = tmp_path_factory.mktemp("three")
    sets = {"fixed": (small_examples, (6, 8, 3)), "free": (photo_examples, (None, None, 3))}
    for name, (make, shape) in sets.items():
        splits = {split: make(5 + n, n) for n, split in enumerate(("train", "validation", "test"))}
        prepare_tfds(root, name, splits, image_features(shape))
        unlabelled = [{**example, "label": -1} for example in splits["test"]]
        prepare_tfds(
            root, f"{name}_unlabelled", {**splits, "test": unlabelled}, image_features(shape)
        )
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))  # a cache does not trust new files
    return root


@pytest.mark.parametrize("name", ["fixed", "free"])
def test_a_test_split_beside_validation_is_kept_for_a_last_test(of_three_splits, name):
    # The second start reads what the first has remembered.
    for _ in range(2):
        data = datasets.load(
            name, data_dir=str(of_three_splits), image_size=None if name == "fixed" else 24
        )
        info = data.info
        assert (info.train_count, info.eval_count, info.test_count) == (5, 6, 7)
        images, labels = images_and_labels(data.for_test().eval_source)
        originals, expected = read_by_tfds(of_three_splits, name, "test")
        assert labels == expected
        for image, original in zip(images, originals, strict=True):
            if name == "free":
                original = pillow_center_crop(original, 24)
            assert difference(image, original).max() <= 1
        assert set(data.digests()) == {"train", "eval", "test"}


@pytest.mark.parametrize("name", ["fixed_unlabelled", "free_unlabelled"])
def test_a_test_split_without_labels_is_none(of_three_splits, name, capsys):
    for _ in range(2):
        data = datasets.load(name, data_dir=str(of_three_splits))
        assert data.test_source is None and data.info.test_count == 0
    assert "test" not in capsys.readouterr().out


def test_a_test_split_that_cannot_be_read_is_left_out(of_three_splits, tmp_path, capsys):
    shutil.copytree(of_three_splits / "free", tmp_path / "free")
    [path] = (tmp_path / "free").rglob("*test.tfrecord*")
    path.write_bytes(path.read_bytes()[:-9])
    data = datasets.load("free", data_dir=str(tmp_path), image_size=24)
    assert data.test_source is None and data.info.eval_count == 6
    assert "Split test of free is left out: " in capsys.readouterr().out


def test_labels_of_a_set_of_files_are_read_once_and_remembered(of_three_splits, monkeypatch):
    _, expected = read_by_tfds(of_three_splits, "free", "train")
    for _ in range(2):
        data = datasets.load(
            "free", data_dir=str(of_three_splits), image_size=24, sampling="balanced"
        )
        assert data.train_source.labels is None
        assert data.train_source.all_labels().tolist() == expected
        assert data.class_counts().tolist() == [3, 2]
        next(iter(data.train(4)))
        # From then on, no record is read for its label.
        monkeypatch.setattr(Encoded, "all_labels", lambda self: self.find_labels())
