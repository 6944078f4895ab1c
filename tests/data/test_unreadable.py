"""Images that can no longer be read once training is under way."""

import numpy as np
import pytest
import tensorflow as tf
from sample_data import (
    encode,
    folder_of_images,
    image_features,
    prepare_tfds,
    smooth_image,
    write_files,
)

from keras_preact.data import load
from keras_preact.data.order import DataOrder
from keras_preact.data.tfrecord import index_files

pytestmark = pytest.mark.usefixtures("no_network")

STREAM = {"seed": 3, "reshuffles": (2,)}


@pytest.fixture
def images(tmp_path):
    """Ten training images, numbers 0 to 9 in the order of their names, and two others."""
    folder_of_images(tmp_path)
    for number in range(4):
        image = encode(smooth_image(20, 30 + number), "JPEG")
        write_files(tmp_path, {f"train/{name}/{number}.jpg": image for name in ("ant", "bee")})
    return load("folder", data_dir=str(tmp_path), image_size=16), tmp_path


@pytest.fixture
def records(tmp_path):
    """Ten photos in two files of records."""
    photos = [
        {"image": encode(smooth_image(20, 30 + n, seed=n), "JPEG"), "label": n % 2}
        for n in range(10)
    ]
    features = image_features((None, None, 3))
    prepare_tfds(tmp_path, "some", {"train": photos, "test": photos[:2]}, features, shards=2)
    return load("some", data_dir=str(tmp_path), image_size=16), tmp_path / "some" / "1.0.0"


def fails_at(dataset, batch_size, start_step=0, **options):
    """The step at which a stream ends with an error."""
    step = start_step
    with pytest.raises(tf.errors.OpError):
        for _ in dataset.train(batch_size, start_step=start_step, **options).take(40):
            step += 1
    return step


def step_of(dataset, batch_size, image, start_step=0):
    """The first step, from the given one on, that holds an image."""
    step = start_step
    while image not in dataset.train_indices(step, batch_size, **STREAM):
        step += 1
    return step


def delete(path):
    path.unlink()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (delete, "no such file"),
        (cut_off, "not an image, or damaged"),
        (lambda p: p.write_bytes(b""), "empty file"),
    ],
)
def test_a_file_spoilt_during_training_is_named_by_its_step(images, spoil, words):
    dataset, root = images
    assert dataset.unreadable("train", range(10)) == []
    # An image of bee, after five of ant.
    path, number = root / "train" / "bee" / "2.jpg", 8
    spoil(path)
    step = step_of(dataset, 4, number, start_step=1)
    assert fails_at(dataset, 4, start_step=1, **STREAM) == step
    [problem] = dataset.unreadable("train", dataset.train_indices(step, 4, **STREAM))
    assert problem.startswith(f"{path}: {words}")
    before = dataset.train_indices(step - 1, 4, **STREAM)
    assert dataset.unreadable("train", set(before) - {number}) == []


def test_an_evaluation_image_is_named(images):
    dataset, root = images
    delete(root / "val" / "bee" / "1.png")
    with pytest.raises(tf.errors.NotFoundError):
        list(dataset.eval(2))
    [problem] = dataset.unreadable("eval", range(dataset.info.eval_count))
    assert problem.startswith(f"{root}/val/bee/1.png: no such file")


def test_each_image_is_described_once_in_the_order_asked_for(images):
    dataset, root = images
    for name in ("0.jpg", "2.jpg"):
        delete(root / "train" / "ant" / name)
    problems = dataset.unreadable("train", np.array([3, 1, 0, 3, 4, 1]))
    assert [problem.partition(":")[0] for problem in problems] == [
        f"{root}/train/ant/2.jpg",
        f"{root}/train/ant/0.jpg",
    ]


def test_a_record_spoilt_during_training_is_named_by_its_step(records):
    dataset, folder = records
    paths = sorted(folder.glob("*-train.tfrecord*"))
    index = index_files(paths)
    assert dataset.unreadable("train", range(10)) == []
    data = bytearray(paths[1].read_bytes())
    number = 7
    assert index.files[number] == 1
    data[index.offsets[number] + 100] ^= 1
    paths[1].write_bytes(data)
    step = step_of(dataset, 4, number)
    assert fails_at(dataset, 4, **STREAM) == step
    record = number - int((index.files == 0).sum())
    [problem] = dataset.unreadable("train", dataset.train_indices(step, 4, **STREAM))
    assert problem == f"{paths[1]}, record {record}: checksum does not match"


def test_all_records_of_a_file_deleted_during_training_are_named(records):
    dataset, folder = records
    paths = sorted(folder.glob("*-train.tfrecord*"))
    count = int((index_files(paths).files == 1).sum())
    delete(paths[1])
    problems = dataset.unreadable("train", range(10))
    starts = [f"{paths[1]}, record {number}: no such file" for number in range(count)]
    assert len(problems) == count
    assert all(p.startswith(s) for p, s in zip(problems, starts, strict=True))


def test_images_of_a_split_of_a_split_are_named_by_their_own_record(tmp_path):
    # Without a test split every tenth image is held out: training image 3 is record 4.
    photos = [
        {"image": encode(smooth_image(20, 30 + n, seed=n), "JPEG"), "label": n % 2}
        for n in range(12)
    ]
    prepare_tfds(tmp_path, "some", {"train": photos}, image_features((None, None, 3)))
    dataset = load("some", data_dir=str(tmp_path), image_size=16)
    [path] = (tmp_path / "some" / "1.0.0").glob("*.tfrecord*")
    data = bytearray(path.read_bytes())
    offsets = index_files([path]).offsets
    for record in (4, 10):
        data[offsets[record] + 100] ^= 1
    path.write_bytes(data)
    assert dataset.unreadable("train", range(10)) == [f"{path}, record 4: checksum does not match"]
    assert dataset.unreadable("train", [3]) != []
    assert dataset.unreadable("eval", range(2)) == [f"{path}, record 10: checksum does not match"]


def test_a_damaged_image_met_by_the_statistics_is_named(images, tmp_path):
    dataset, root = images
    delete(root / "train" / "ant" / "1.jpg")
    with pytest.raises(ValueError) as error:
        dataset.train_source.statistics()
    assert str(error.value).startswith("Every image must be readable. Received: 1 unreadable of 10")
    assert f"  {root}/train/ant/1.jpg: no such file" in str(error.value)


def test_images_in_memory_can_always_be_read(digits):
    for split in ("train", "eval"):
        assert digits.unreadable(split, range(10)) == []


def test_an_unknown_split_is_refused(digits):
    with pytest.raises(ValueError, match=r"split must be one of train, eval"):
        digits.unreadable("validation", [0])


def test_the_images_of_a_step_are_those_of_the_order(digits):
    order = DataOrder(1437, 50, 4, (3, 9))
    for step in (0, 9, 40):
        np.testing.assert_array_equal(
            digits.train_indices(step, 50, seed=4, reshuffles=(3, 9)), order.batch(step)[0]
        )


def test_a_stream_with_restarts_holds_the_images_of_the_order(digits):
    stream = digits.train(50, seed=4, start_step=8, augmentation="none", reshuffles=(3, 9))
    for step, (images, labels) in zip(range(8, 12), stream.as_numpy_iterator(), strict=False):
        indices = digits.train_indices(step, 50, seed=4, reshuffles=(3, 9))
        np.testing.assert_array_equal(images, digits.train_source.images[indices])
        np.testing.assert_array_equal(labels, digits.train_source.labels[indices])
    with pytest.raises(ValueError, match=r"ascending order\. Received: reshuffles=\(9, 3\)"):
        digits.train(50, reshuffles=(9, 3))
