"""Folders of images that break a rule, or cannot be read."""

import os
import socket

import numpy as np
import pytest
import tensorflow as tf
from image_encoding import encode
from jpeg_files import with_scans
from sample_data import folder_of_images, load_folder, smooth_image, write_files

from keras_preact.data import datasets, folder

IMAGE = encode(smooth_image(20, 30))
RULE = (
    "must be a folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE, or CLASS/IMAGE alone. "
    "Received: "
)


@pytest.fixture
def good(tmp_path):
    folder_of_images(tmp_path)
    return tmp_path


def refusal(root, **options):
    """The error of loading a folder."""
    with pytest.raises(ValueError) as error:
        load_folder(str(root), 16, **options)
    return str(error.value)


@pytest.fixture
def lock(monkeypatch):
    """Locks paths, even for root."""
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


@pytest.mark.parametrize("other", ["val", "valid", "validation", "test"])
def test_missing_training_images_are_named(good, other):
    (good / "train").rename(good.parent / f"moved_{good.name}")
    (good / "val").rename(good / other)
    assert f"{good} {RULE}{good / 'train'}: no such file or folder" in refusal(good)


@pytest.mark.parametrize("path", ["", "train", "val"])
def test_a_file_in_the_place_of_a_folder_is_named(good, path):
    (good / path).rename(good.parent / f"moved_{good.name}")
    (good / path).write_bytes(IMAGE)
    assert f"{good} {RULE}{good / path}: not a folder" in refusal(good)


@pytest.mark.parametrize("path", ["train", "val", "train/bee", "val/ant"])
def test_a_folder_that_must_not_be_listed_is_named(good, lock, path):
    lock(good / path)
    assert f"{RULE}{good / path}: permission denied" in refusal(good)


def test_a_data_dir_that_must_not_be_followed_is_named(good, lock):
    lock(good)
    rule = "data_dir must be a path that you may follow (Permission denied)"
    assert refusal(good) == f"{rule}. Received: data_dir='{good}'"


def test_a_file_that_must_not_be_read_is_listed_with_the_damaged_ones(good, monkeypatch):
    def read_file(path):
        error = folder.tf.errors.PermissionDeniedError
        raise error(None, None, f"{path}; Permission denied")

    # For root too, who may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(folder.tf.io, "read_file", read_file)
    for path in good.rglob("*.png"):
        path.chmod(0o200)
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
    train, _, _ = load_folder(str(good), 16, skip_bad_images=True)
    assert len(train) == 2
    assert "train/ant/link.png" in capsys.readouterr().out


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        # A path of at most 108 bytes.
        os.chdir(path.parent)
        listener.bind(path.name)


def make_endless_link(path):
    path.symlink_to("/dev/zero")


def make_huge(path):
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (make_fifo, "a FIFO, no regular file"),
        (make_socket, "a socket, no regular file"),
        (make_endless_link, "a device, no regular file"),
        (make_huge, "1,099,511,627,776 bytes, more than the 536,870,912 of the largest images"),
    ],
)
def test_endless_files_are_listed_and_not_opened(good, capsys, monkeypatch, make, why):
    monkeypatch.chdir(good)
    make(good / "train" / "ant" / "endless.jpg")
    message = refusal(good)
    assert message.startswith("1 of 5 files cannot be decoded")
    assert message.endswith(f"\n  {good}/train/ant/endless.jpg: {why}")
    train, _, _ = load_folder(str(good), 16, skip_bad_images=True)
    assert len(train) == 2
    assert f"{good}/train/ant/endless.jpg: {why}" in capsys.readouterr().out


def test_a_file_that_becomes_a_fifo_later_is_named_and_not_opened(good):
    dataset = datasets.load("folder", data_dir=str(good), image_size=16)
    path = good / "train" / "ant" / "0.png"
    path.unlink()
    os.mkfifo(path)
    assert dataset.unreadable("train", [0]) == [f"{path}: a FIFO, no regular file"]


THIN = encode(np.zeros((1, 20_000), np.uint8), mode="1")
MANY_SCANS = with_scans(encode(np.zeros((400, 400), np.uint8), "JPEG", progressive=True), 5000)
BEYOND = {
    "thin.png": (THIN, "An image must have 1 to 50,000,000 pixels, and no more once it covers"),
    "scans.jpg": (MANY_SCANS, "A JPEG must have at most 32 scans"),
    "picture.webp": (
        encode(smooth_image(20, 30), "WEBP"),
        "Images must be JPEG, PNG, GIF or BMP files",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_file_that_would_take_all_memory_or_time_is_listed_with_the_rule(good, capsys, name):
    file, rule = BEYOND[name]
    write_files(good, {f"train/bee/{name}": file})
    message = str(refused(good))
    assert message.startswith("1 of 5 files cannot be decoded")
    assert f"\n  {good}/train/bee/{name}: {rule}" in message
    data = datasets.load("folder", data_dir=str(good), image_size=224, skip_bad_images=True)
    assert data.info.train_count == 2
    assert f"{good}/train/bee/{name}: {rule}" in capsys.readouterr().out


def refused(root):
    """The error of loading a folder of images of 224 pixels, with what comes after decoding."""
    with pytest.raises(ValueError) as error:
        datasets.load("folder", data_dir=str(root), image_size=224)
    return error.value


@pytest.mark.parametrize("name", BEYOND)
def test_a_file_that_grows_too_large_later_is_named_and_not_decoded(good, name):
    data = datasets.load("folder", data_dir=str(good), image_size=224)
    file, rule = BEYOND[name]
    for path in (good / "train" / "ant" / "0.png", good / "val" / "bee" / "1.png"):
        path.write_bytes(file)
    for augmentation in ("none", "random_resized_crop"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            list(data.train(2, augmentation=augmentation).take(1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        list(data.eval(2))
    with pytest.raises(ValueError, match=rf"(?s)Every image must be readable.*0\.png: {rule}"):
        data.train_source.statistics()
    [problem] = data.unreadable("eval", [0, 1])
    assert problem.startswith(f"{good}/val/bee/1.png: {rule}")


def test_an_image_whose_name_is_not_utf8_is_listed_escaped(good, capsys):
    path = os.fsdecode(os.fsencode(good / "train" / "ant") + b"/\xff.png")
    write_files(good, {path: IMAGE})
    message = refusal(good)
    listed = rf"{good}/train/ant/\udcff.png: its name is not UTF-8"
    assert message.startswith("1 of 5 files cannot be decoded")
    assert listed in message
    train, _, _ = load_folder(str(good), 16, skip_bad_images=True)
    assert len(train) == 2
    assert listed in capsys.readouterr().out


def test_an_image_whose_name_has_a_line_break_is_listed_in_one_line(good):
    write_files(good, {"val/bee/a\n\x1b[2Jb.png": b"no image"})
    assert rf"  {good}/val/bee/a\n\x1b[2Jb.png: Images must be" in refusal(good).splitlines()[1]
    write_files(good, {"val/bee/a\n\x1b[2Jb.png": IMAGE})
    assert len(load_folder(str(good), 16)[1]) == 3


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        (b"\xffant", r"'\udcffant'"),
        (b"an\nt", r"'an\nt'"),
        (b"\x1b[31m", r"'\x1b[31m'"),
        (b" ", "' '"),
    ],
)
def test_a_class_folder_whose_name_is_no_line_of_text_is_named_escaped(good, name, quoted):
    path = os.fsdecode(os.fsencode(good / "val") + b"/" + name)
    write_files(good, {f"{path}/1.png": IMAGE})
    message = refusal(good, skip_bad_images=True)
    assert message.startswith("The name of a class must be a line of UTF-8 without control char")
    assert message.endswith(f"Received, in {good}/val: {quoted}")


@pytest.mark.parametrize("dataset", ["folder", "cifar10"])
@pytest.mark.parametrize("name", [b"\xff", b"a\nb"])
def test_a_data_dir_whose_name_is_no_line_of_text_is_named_escaped(tmp_path, dataset, name):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    os.mkdir(path)
    folder_of_images(path)
    with pytest.raises(ValueError, match=r"^data_dir must (be UTF-8|have no line breaks)") as error:
        datasets.load(dataset, data_dir=path)
    assert str(error.value).endswith(f"Received: data_dir={path!r}")


def test_files_of_an_owner_without_a_name_are_read(good, monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert len(load_folder(str(good), 16)[0]) == 2


def test_links_to_folders_and_files_are_followed(good, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_files(elsewhere, {"wasps/1.png": IMAGE, "2.png": IMAGE})
    for split in ("train", "val"):
        (good / split / "wasp").symlink_to(elsewhere / "wasps")
    (good / "train" / "ant" / "2.png").symlink_to(elsewhere / "2.png")
    train, val, names = load_folder(str(good), 16)
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


def test_files_beside_the_class_folders_are_ignored(good):
    write_files(good, {"train/README.txt": b"Ants and bees.", "val/1.png": IMAGE})
    assert load_folder(str(good), 16)[2] == ["ant", "bee"]
