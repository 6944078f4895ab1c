"""Digests that tell the images of two data sets apart, in any folder."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from sample_data import encode, image_features, prepare_tfds, smooth_image, write_files

from keras_preact.data import load
from keras_preact.data.sources import Encoded, InMemory

pytestmark = pytest.mark.usefixtures("no_network")


def in_memory(labels):
    return InMemory(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32))


@pytest.mark.parametrize("other", [[0, 1, 1], [1, 0, 1, 1], [0, 1, 2, 1], []])
def test_images_in_memory_of_other_labels_have_another_digest(other):
    digest = in_memory([0, 1, 1, 1]).digest()
    assert digest == in_memory([0, 1, 1, 1]).digest() != in_memory(other).digest()
    assert len(digest) == 12


def encoded(files, labels=None, listing=b"names"):
    files, labels = tf.constant(files), tf.constant(labels or [0] * len(files))
    return Encoded(
        lambda index: (files[index], labels[index]), len(files), 8, listing=lambda: listing
    )


FILES = [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    "other",
    [
        encoded([b"one", b"two", b"threE"]),
        encoded([b"two", b"one", b"three"]),
        encoded([b"one", b"twot", b"hree"]),
        encoded(FILES, [0, 1, 0]),
        encoded(FILES, listing=b"other names"),
        encoded(FILES[:2]),
    ],
)
def test_other_files_other_labels_and_another_listing_have_another_digest(other):
    assert encoded(FILES).digest() == encoded(FILES).digest() != other.digest()


def test_only_some_of_many_files_are_read(monkeypatch):
    monkeypatch.setattr(Encoded, "DIGEST_IMAGES", 3)
    read = []
    source = encoded([b"%d" % n for n in range(11)])
    counting = Encoded(lambda index: read.append(int(index)) or source.read(index), 11, 8)
    counting.digest()
    assert read == [0, 5, 10]


def test_a_selection_has_a_digest_of_its_own():
    source = encoded([b"same"] * 4)
    masks = np.array([[True, True, False, False], [True, False, True, False]])
    left, right = (source.select(mask).digest() for mask in masks)
    assert left == source.select(masks[0]).digest() != right


def test_a_file_that_is_gone_is_named(tmp_path):
    write_files(tmp_path, FOLDER)
    data = load("folder", data_dir=str(tmp_path), image_size=8)
    path = tmp_path / "val" / "bee" / "0.png"
    path.unlink()
    with pytest.raises(ValueError, match=rf"(?s)must be readable.*{path}: no such file"):
        data.digests()


def photo(seed):
    return encode(smooth_image(9, 12, seed=seed), "PNG")


FOLDER = {
    f"{split}/{name}/{number}.png": photo(10 * number + place)
    for place, (split, name) in enumerate((s, n) for s in ("train", "val") for n in ("ant", "bee"))
    for number in range(2)
}


def digests_of(root, files):
    write_files(root, files)
    return load("folder", data_dir=str(root), image_size=8).digests()


@pytest.mark.parametrize(
    ("changes", "split"),
    [
        ({"val/bee/0.png": photo(99)}, "eval"),
        ({"val/bee/2.png": photo(99)}, "eval"),
        ({"val/bee/0.png": None, "val/bee/00.png": FOLDER["val/bee/0.png"]}, "eval"),
        (
            {
                "train/ant/0.png": FOLDER["train/ant/1.png"],
                "train/ant/1.png": FOLDER["train/ant/0.png"],
            },
            "train",
        ),
    ],
)
def test_another_folder_of_the_same_files_has_the_same_digest_and_one_of_others_has_not(
    tmp_path, changes, split
):
    here = digests_of(tmp_path / "here", FOLDER)
    assert here == digests_of(tmp_path / "some" / "where" / "else", FOLDER)
    changed = {name: data for name, data in (FOLDER | changes).items() if data is not None}
    there = digests_of(tmp_path / "there", changed)
    assert [name for name in here if here[name] != there[name]] == [split]


def test_sizes_tell_files_apart_that_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Encoded, "DIGEST_IMAGES", 1)
    last = "train/bee/1.png"
    here = digests_of(tmp_path / "here", FOLDER)
    there = digests_of(tmp_path / "there", {**FOLDER, last: FOLDER[last] + b"more"})
    assert here["train"] != there["train"]


def test_records_have_one_digest_wherever_they_lie(tmp_path):
    def prepare(root, last):
        examples = [{"image": photo(n), "label": n % 2} for n in (*range(6), last)]
        splits = {"train": examples, "validation": examples[:3]}
        prepare_tfds(root, "photos", splits, image_features((None, None, 3)), shards=2)
        return load("photos", data_dir=str(root), image_size=8).digests()

    here = prepare(tmp_path / "here", 6)
    shutil.copytree(tmp_path / "here", tmp_path / "some" / "there")
    assert load("photos", data_dir=str(tmp_path / "some" / "there"), image_size=8).digests() == here
    other = prepare(tmp_path / "other", 7)
    assert other["train"] != here["train"] and other["eval"] == here["eval"]


def test_lengths_tell_records_apart_that_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Encoded, "DIGEST_IMAGES", 1)

    def prepare(root, end):
        examples = [{"image": photo(n) + end * (n == 4), "label": n % 2} for n in range(6)]
        prepare_tfds(root, "photos", {"train": examples}, image_features((None, None, 3)))
        return load("photos", data_dir=str(root), image_size=8).digests()

    assert prepare(tmp_path / "here", b"") != prepare(tmp_path / "there", b"more")
