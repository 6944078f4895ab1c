"""Training and evaluation streams, whatever the data set."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from image_encoding import encode, smooth_image
from sklearn.datasets import load_digits

from keras_preact.data import Dataset, augmentation, datasets, load
from keras_preact.data.augmentation_text import BASES
from keras_preact.data.order import DataOrder
from keras_preact.data.sources import InMemory
from keras_preact.layers import Preprocessing

pytestmark = pytest.mark.usefixtures("no_network")


def batches(stream, count):
    return list(itertools.islice(stream.as_numpy_iterator(), count))


def samples(stream, count, batch_size):
    """The first images and labels of a stream."""
    images, labels = zip(*batches(stream, -(-count // batch_size)), strict=True)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


# Sets in memory and as files; each with every augmentation it can have.
STREAMS = [
    ("digits", "none"),
    ("digits", "pad_crop"),
    ("digits", "pad_crop_flip"),
    ("photos", "none"),
    ("photos", "random_resized_crop"),
    ("photos", "random_scale_crop"),
    ("digits", "pad_crop,rand_augment"),
    ("photos", "random_resized_crop,trivial_augment,random_erasing=0.5"),
    ("photos", "pad_crop_flip"),
]
streams = pytest.mark.parametrize(("name", "augmentation"), STREAMS)


@streams
def test_two_streams_of_one_seed_are_identical_to_the_byte(request, name, augmentation):
    dataset = request.getfixturevalue(name)
    one, two = (batches(dataset.train(8, seed=5, augmentation=augmentation), 6) for _ in range(2))
    for (images, labels), (others, other_labels) in zip(one, two, strict=True):
        assert images.tobytes() == others.tobytes()
        assert labels.tobytes() == other_labels.tobytes()


@streams
def test_a_stream_is_resumed_at_any_step(request, name, augmentation):
    dataset = request.getfixturevalue(name)
    whole = batches(dataset.train(4, seed=5, augmentation=augmentation), 8)
    rest = batches(dataset.train(4, seed=5, augmentation=augmentation, start_step=5), 3)
    for (images, labels), (others, other_labels) in zip(whole[5:], rest, strict=True):
        assert images.tobytes() == others.tobytes()
        assert labels.tobytes() == other_labels.tobytes()


@streams
def test_the_batch_size_does_not_change_an_image_or_its_place(request, name, augmentation):
    dataset = request.getfixturevalue(name)
    # 20 samples of nine photos lie in three epochs.
    one, other = (
        samples(dataset.train(size, seed=5, augmentation=augmentation), 20, size)
        for size in (3, 13)
    )
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@streams
def test_another_seed_gives_another_stream(request, name, augmentation):
    dataset = request.getfixturevalue(name)
    one, other = (
        samples(dataset.train(9, seed=seed, augmentation=augmentation), 18, 9) for seed in (5, 6)
    )
    # Not one epoch begins alike, so most images differ.
    same = [np.array_equal(*pair) for pair in zip(one[0], other[0], strict=True)]
    assert sum(same) < 9


def test_a_photo_is_cropped_anew_in_every_epoch(photos):
    # Nine photos, two epochs: 18 images of which no two are the same.
    images, _ = samples(photos.train(9, augmentation="random_resized_crop"), 18, 9)
    assert len({image.tobytes() for image in images}) == 18


def test_digits_are_padded_and_cropped_in_the_order_of_their_draws(digits):
    # The reference, one image at a time, on scikit-learn's own images.
    bunch = load_digits()
    training = np.flatnonzero(np.arange(1797) % 5)
    order = DataOrder(1437, 50, seed=2)
    stream = digits.train(50, seed=2, start_step=27)  # the epoch ends at step 28.74
    for step, (images, labels) in zip(range(27, 31), stream.as_numpy_iterator(), strict=False):
        indices, draws = order.batch(step)
        chosen = training[indices]
        np.testing.assert_array_equal(labels, bunch.target[chosen])
        padded = np.pad(np.rint(bunch.images[chosen] * 255 / 16), ((0, 0), (1, 1), (1, 1)))
        for image, frame, (down, right, *_) in zip(images, padded, draws % 3, strict=True):
            np.testing.assert_array_equal(image[..., 0], frame[down : down + 8, right : right + 8])


def test_training_images_of_an_epoch_are_all_of_them_once(digits):
    images, labels = samples(digits.train(479, augmentation="none"), 1437, 479)
    source = digits.train_source
    left, right = (
        sorted(zip((i.tobytes() for i in some), numbers.tolist(), strict=True))
        for some, numbers in ((images, labels), (source.images, source.labels))
    )
    assert left == right


@pytest.mark.parametrize("batch_size", [1, 7, 360, 365])
def test_every_evaluation_image_counts_once_at_any_batch_size(digits, batch_size):
    stream = digits.eval(batch_size)
    images, labels, weights = (
        np.stack(parts) for parts in zip(*stream.as_numpy_iterator(), strict=True)
    )
    # Stacking has shown that all batches have one size; this is their number.
    assert len(images) == -(-360 // batch_size)
    assert images.shape[1] == batch_size
    images, labels, weights = (
        part.reshape(-1, *part.shape[2:]) for part in (images, labels, weights)
    )
    assert weights.dtype == np.float32
    assert weights.sum() == 360
    assert (weights[:360] == 1).all()
    assert (weights[360:] == 0).all()
    np.testing.assert_array_equal(images[:360], digits.eval_source.images)
    np.testing.assert_array_equal(labels[:360], load_digits().target[::5])
    # The filling must be a valid image of a valid class.
    np.testing.assert_array_equal(images[360:], np.repeat(images[:1], len(images) - 360, axis=0))


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
def test_every_photo_counts_once_at_any_batch_size(photos, batch_size):
    parts = zip(*photos.eval(batch_size).as_numpy_iterator(), strict=True)
    images, labels, weights = map(np.concatenate, parts)
    assert len(images) % batch_size == 0
    assert weights.tolist() == [1.0] * 5 + [0.0] * (len(images) - 5)
    # Files 0, 2 and 4 are of class a, 1 and 3 of class b.
    assert labels[:5].tolist() == [0, 0, 0, 1, 1]
    assert len({image.tobytes() for image in images[:5]}) == 5


def test_the_description_says_what_a_network_must_know(digits, photos):
    info = digits.info
    assert (info.name, info.classes, info.image_shape) == ("digits", 10, (8, 8, 1))
    assert (info.train_count, info.eval_count, info.resize_ratio) == (1437, 360, 1.0)
    pixels = np.rint(load_digits().images[np.arange(1797) % 5 > 0] * 255 / 16)
    np.testing.assert_allclose(info.mean, [pixels.mean()], rtol=1e-9)
    np.testing.assert_allclose(info.std, [pixels.std()], rtol=1e-9)
    info = photos.info
    assert (info.class_names, info.image_shape) == (("a", "b"), (16, 16, 3))
    assert (info.train_count, info.eval_count) == (9, 5)
    # Files are evaluated on the inner 224 of 256 pixels.
    assert info.resize_ratio == pytest.approx(8 / 7)


@pytest.mark.parametrize(
    ("name", "default"), [("digits", "pad_crop"), ("photos", "random_resized_crop")]
)
def test_the_default_augmentation_is_what_suits_the_set(request, name, default):
    dataset = request.getfixturevalue(name)
    by_default, named = dataset.train(9, seed=1), dataset.train(9, seed=1, augmentation=default)
    np.testing.assert_array_equal(samples(by_default, 9, 9)[0], samples(named, 9, 9)[0])


def test_synthetic_images_are_not_augmented_by_default():
    synthetic = load("synthetic", image_size=8)
    assert synthetic.info.image_shape == (8, 8, 3)
    originals = {image.tobytes() for image in synthetic.train_source.images}
    images, _ = samples(synthetic.train(64), 64, 64)
    assert {image.tobytes() for image in images} <= originals


@pytest.mark.parametrize(
    ("name", "refused"),
    [("digits", ["random_resized_crop", "random_scale_crop"]), ("photos", [])],
)
def test_augmentations_that_do_not_fit_the_images_are_refused(request, name, refused):
    dataset = request.getfixturevalue(name)
    for base in BASES:
        if base not in refused:
            assert dataset.check_augmentation(base) == base
            continue
        with pytest.raises(ValueError, match=f"Received: augmentation='{base}'") as error:
            dataset.train(4, augmentation=base)
        fitting = ", ".join(name for name in BASES if name not in refused)
        assert f"must be one of {fitting}." in str(error.value)


def test_operations_without_a_base_follow_the_data_sets_default(digits, photos):
    assert digits.check_augmentation("random_erasing") == "pad_crop,random_erasing=0.5"
    named = photos.check_augmentation("rand_augment=7,hue_jitter=0.25")
    assert named == "random_resized_crop,rand_augment=7,hue_jitter=0.25"


def test_operations_change_the_images_that_the_base_makes(photos):
    # 20 images: more than are changed at a time, and other numbers of them.
    operations = "color_jitter=0.8,random_erasing=0.5"
    _, draws = photos.train_order(20, 3).batch(0)
    cropped, labels = samples(photos.train(20, seed=3), 20, 20)
    by_hand = augmentation.augmented(
        tf.constant(cropped), tf.constant(draws), f"none,{operations}", photos.info.mean
    )
    changed, same_labels = samples(photos.train(20, seed=3, augmentation=operations), 20, 20)
    np.testing.assert_array_equal(changed, by_hand)
    np.testing.assert_array_equal(same_labels, labels)
    assert (changed != cropped).any(axis=(1, 2, 3)).all()


def test_photos_are_cropped_to_the_centre_before_they_are_padded_cropped_and_mirrored(photos):
    indices, draws = next(photos.train_order(9, 1).batches(0))
    crops = photos.train_source.eval_images(tf.data.Dataset.from_tensor_slices(indices))
    crops = np.stack([image for image, *_ in crops.as_numpy_iterator()])
    for name in ("none", "pad_crop", "pad_crop_flip"):
        images, *_ = next(iter(photos.train(9, seed=1, augmentation=name)))
        expected = augmentation.augmented(
            tf.constant(crops), tf.constant(draws), name, photos.info.mean
        )
        np.testing.assert_array_equal(images, expected)


def test_the_part_that_an_evaluation_crops_can_be_chosen(photos, digits):
    root = pathlib.Path(photos.eval_source.where(0)).parents[2]
    options = {"data_dir": str(root), "image_size": 16}
    chosen = load("folder", **options, crop_ratio=0.8)
    assert chosen.info.resize_ratio == 1.25
    # Mean and deviation are those of the usual crop, remembered or not.
    assert (chosen.info.mean, chosen.info.std) == (photos.info.mean, photos.info.std)
    [image, *_] = next(iter(chosen.eval_source.eval_images(tf.data.Dataset.range(1))))
    encoded = tf.constant(chosen.eval_source.file(0))
    np.testing.assert_array_equal(image, augmentation.fit(encoded, (16, 16, 3), 1.25))
    again = load("folder", **options, like=chosen.info.preprocessing)
    assert again.info.resize_ratio == again.eval_source.resize_ratio == 1.25
    with pytest.raises(ValueError, match=r"left out for digits.*Received: crop_ratio=0\.8"):
        load("digits", crop_ratio=0.8)


def test_an_unknown_augmentation_is_refused_with_the_nearest_known(digits):
    with pytest.raises(ValueError, match="Did you mean 'pad_crop_flip'"):
        digits.train(4, augmentation="padcropflip")


def test_another_size_than_that_of_the_images_is_refused():
    assert load("digits", image_size=8).info.image_shape == (8, 8, 1)
    with pytest.raises(ValueError, match=r"digits, whose images are 8x8\. Received: image_size=16"):
        load("digits", image_size=16)


def test_names_of_own_sets_need_no_folder_to_be_checked():
    for name in ("digits", "synthetic"):
        assert datasets.check(name, None) is None


def test_a_dataset_can_be_made_of_ones_own_arrays(digits):
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    own = InMemory(images, np.array([0, 1, 0], np.int32))
    dataset = Dataset(digits.info, own, own, "none")
    (fetched, labels, weights), *rest = dataset.eval(4).as_numpy_iterator()
    assert rest == []
    np.testing.assert_array_equal(fetched, images[[0, 1, 2, 0]])
    assert labels.tolist() == [0, 1, 0, 0]
    assert weights.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("name", ["digits", "photos"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_chosen_evaluation_images_come_as_asked_for(request, name, batch_size):
    dataset, chosen = request.getfixturevalue(name), np.array([4, 0, 3])
    [(every, all_labels, _)] = batches(dataset.eval(dataset.info.eval_count), 1)
    stream = dataset.eval(batch_size, indices=chosen)
    images, labels, weights = map(np.concatenate, zip(*stream.as_numpy_iterator(), strict=True))
    assert len(images) == -(-3 // batch_size) * batch_size
    assert weights.tolist() == [1.0] * 3 + [0.0] * (len(images) - 3)
    np.testing.assert_array_equal(images[:3], every[chosen])
    np.testing.assert_array_equal(labels[:3], all_labels[chosen])
    # Filled up with an image that was asked for.
    np.testing.assert_array_equal(images[3:], every[[4] * (len(images) - 3)])


def test_images_of_various_sizes_have_the_size_of_what_they_should_be_like(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            image = encode(smooth_image(20, 24, number))
            (tmp_path / split / name / "image.png").write_bytes(image)
    like = Preprocessing((12, 12, 1), (7.0,), (3.0,), 1.25, "bicubic")
    info = load("folder", data_dir=str(tmp_path), like=like).info
    assert (info.image_shape, info.mean, info.std) == ((12, 12, 3), (7.0,) * 3, (3.0,) * 3)
    assert (info.resize_ratio, info.interpolation) == (1.25, "bicubic")
    assert load("folder", data_dir=str(tmp_path), image_size=9, like=like).info.image_shape[0] == 9
