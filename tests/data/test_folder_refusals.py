"""Folders of images that are not as they must be, or cannot be read."""

import os

import pytest
from sample_data import encode, folder_of_images, smooth_image, write_files

from keras_preact.data import datasets, folder

IMAGE = encode(smooth_image(20, 30))
RULE = "must be a folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE. Received: "


@pytest.fixture
def good(tmp_path):
    folder_of_images(tmp_path)
    return tmp_path


def refusal(root, **options):
    """The error of loading a folder."""
    with pytest.raises(ValueError) as error:
        folder.load(str(root), 16, **options)
    return str(error.value)


@pytest.fixture
def lock(monkeypatch):
    """Locks paths, also for a user whom permissions do not stop."""
    locked = set()

    def guarded(function):
        def call(path=".", *arguments, **options):
            if str(path) in locked:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return call

    for name in ("listdir", "stat", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    return lambda path: locked.add(str(path))


def test_a_missing_folder_is_named(tmp_path):
    assert f"{RULE}{tmp_path}/absent: no such file or folder" in refusal(tmp_path / "absent")


def test_a_folder_must_be_given():
    with pytest.raises(ValueError, match=r"dataset='folder' needs data_dir: .*train/CLASS/IMAGE"):
        datasets.load("folder")


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_is_named(good, missing):
    (good / missing).rename(good / "elsewhere")
    assert f"{good} {RULE}{good / missing}: no such file or folder" in refusal(good)


@pytest.mark.parametrize("path", ["", "train", "val"])
def test_a_file_in_the_place_of_a_folder_is_named(good, path):
    (good / path).rename(good.parent / f"moved_{good.name}")
    (good / path).write_bytes(IMAGE)
    assert f"{good} {RULE}{good / path}: not a folder" in refusal(good)


@pytest.mark.parametrize("path", ["", "train", "val", "train/bee", "val/ant"])
def test_a_folder_that_must_not_be_listed_is_named(good, lock, path):
    lock(good / path)
    assert f"{RULE}{good / path}: permission denied" in refusal(good)


def test_a_file_that_must_not_be_read_is_listed_with_the_damaged_ones(good, monkeypatch):
    def read_file(path):
        error = folder.tf.errors.PermissionDeniedError
        raise error(None, None, f"{path}; Permission denied")

    monkeypatch.setattr(folder.tf.io, "read_file", read_file)
    assert f"{good}/val/ant/0.png: permission denied" in refusal(good)


def test_a_link_to_no_class_folder_is_named(good):
    (good / "train" / "wasp").symlink_to(good / "gone")
    message = refusal(good)
    assert f"{RULE}{good}/train/wasp: no such file or folder, or a link to none" in message


@pytest.mark.parametrize("target", ["gone.png", "link.png"])
def test_a_link_to_no_file_is_listed_with_the_damaged_files(good, capsys, target):
    (good / "train" / "ant" / "link.png").symlink_to(good / "train" / "ant" / target)
    message = refusal(good)
    assert message.startswith("1 of 5 files cannot be decoded")
    assert f"  {good}/train/ant/link.png: " in message
    train, _, _ = folder.load(str(good), 16, skip_bad_images=True)
    assert len(train) == 2
    assert "train/ant/link.png" in capsys.readouterr().out


def test_links_to_folders_and_files_are_followed(good, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_files(elsewhere, {"wasps/1.png": IMAGE, "2.png": IMAGE})
    for split in ("train", "val"):
        (good / split / "wasp").symlink_to(elsewhere / "wasps")
    (good / "train" / "ant" / "2.png").symlink_to(elsewhere / "2.png")
    train, val, names = folder.load(str(good), 16)
    assert (len(train), len(val), names) == (4, 3, ["ant", "bee", "wasp"])


def test_classes_of_only_one_split_are_named_with_the_split_that_lacks_them(good):
    write_files(good, {"train/wasp/1.png": IMAGE, "val/fly/1.png": IMAGE, "val/gnat/1.png": IMAGE})
    message = refusal(good)
    assert message == (
        f"train/ and val/ of {good} must hold the same class folders. "
        "Missing in train/: fly, gnat. Missing in val/: wasp."
    )
    (good / "train" / "wasp" / "1.png").unlink()
    (good / "train" / "wasp").rmdir()
    assert refusal(good).endswith("class folders. Missing in train/: fly, gnat.")


@pytest.mark.parametrize("files", [[], [".DS_Store", "._1.png"], ["deeper/1.png"]])
def test_classes_without_an_image_are_named_in_every_split_before_images_are_read(good, files):
    write_files(good, {"train/ant/damaged.png": b"no image"})
    for path in ("train/cicada", "val/cicada", "val/wasp"):
        (good / path).mkdir()
        write_files(good, {f"{path}/{name}": IMAGE for name in files})
    write_files(good, {"train/wasp/1.png": IMAGE})
    for options in ({}, {"skip_bad_images": True}):
        message = refusal(good, **options)
        empty = ", ".join(f"{good}/{path}" for path in ("train/cicada", "val/cicada", "val/wasp"))
        assert "files whose names begin with a dot do not count" in message
        assert message.endswith(f"Received without one: {empty}")


@pytest.mark.parametrize("classes", [(), ("ant",), (".ant", ".bee")])
def test_fewer_than_two_classes_are_refused(tmp_path, classes):
    folder_of_images(tmp_path, classes)
    for split in ("train", "val"):
        write_files(tmp_path, {f"{split}/not_in_a_class.png": IMAGE})
    message = refusal(tmp_path)
    assert f"{tmp_path}/train must hold one folder for each of two or more classes" in message


def test_what_is_no_class_folder_is_ignored_among_them(good):
    write_files(good, {"train/README.txt": b"Ants and bees.", "val/1.png": IMAGE})
    assert folder.load(str(good), 16)[2] == ["ant", "bee"]
