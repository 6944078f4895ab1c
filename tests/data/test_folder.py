"""A folder of images, one folder a class."""

import numpy as np
import pytest
import tensorflow as tf
from sample_data import (
    difference,
    encode,
    load_folder,
    pillow_center_crop,
    smooth_image,
    write_files,
)

from keras_preact.data import datasets, folder

pytestmark = pytest.mark.usefixtures("no_network")


def photo(number, file_format="JPEG", **options):
    return encode(smooth_image(40 + number, 60, seed=number), file_format, **options)


GOOD = {
    "train/bee/1.jpg": photo(1),
    "train/bee/2.png": photo(2, "PNG"),
    "train/ant/3.jpg": photo(3),
    "val/ant/4.jpg": photo(4),
    "val/bee/5.gif": photo(5, "GIF"),
}

# JPEG and PNG files of which the end is missing, and files of other kinds.
BAD = {
    "train/ant/empty.jpg": b"",
    "train/ant/truncated.jpg": photo(6)[:-300],
    "train/bee/header_only.jpg": photo(7)[:20],
    "train/bee/truncated.png": photo(8, "PNG")[:-300],
    "train/bee/notes.txt": b"Notes on bees.\n",
    "val/ant/damaged.png": photo(9, "PNG").replace(b"IDAT", b"IDAX"),
    "val/bee/picture.tiff": photo(10, "TIFF"),
}


@pytest.fixture
def good(tmp_path):
    write_files(tmp_path, GOOD)
    return tmp_path


def images_of(source):
    fetched = source.eval_images(tf.data.Dataset.from_tensor_slices(np.arange(len(source))))
    return list(fetched.as_numpy_iterator())


def test_classes_are_sorted_and_labels_are_their_numbers(tmp_path):
    # Upper case comes before lower case, "10" before "9"; made in another order.
    names = ["zebra", "Mouse", "9", "ant", "10"]
    for number, name in enumerate(names):
        # Every class has a shade of its own, every split a number of images.
        image = encode(np.full((20, 20, 3), 50 * number, np.uint8))
        files = {f"train/{name}/b.png": image, f"train/{name}/a.png": image}
        write_files(tmp_path, {**files, f"val/{name}/only.png": image})
    train, val, classes = load_folder(str(tmp_path), 16)
    assert classes == ["10", "9", "Mouse", "ant", "zebra"]
    shades = [50 * names.index(name) for name in classes]
    for source, repeats in ((train, 2), (val, 1)):
        images, labels = zip(*images_of(source), strict=True)
        assert list(labels) == np.repeat(range(5), repeats).tolist()
        assert [int(image.mean()) for image in images] == np.repeat(shades, repeats).tolist()


def test_images_are_those_of_the_files_in_the_order_of_their_names(good):
    train, val, _ = load_folder(str(good), 32)
    for source, numbers, labels in ((train, (3, 1, 2), (0, 1, 1)), (val, (4, 5), (0, 1))):
        assert len(source) == len(numbers)
        for (image, label), number, expected in zip(
            images_of(source), numbers, labels, strict=True
        ):
            assert label == expected
            original = pillow_center_crop(smooth_image(40 + number, 60, seed=number), 32)
            # JPEG and the palette of GIF lose a little; another image differs by about 80.
            assert difference(image, original).mean() < 5


def test_evaluation_images_are_called_by_their_paths_and_given_as_their_files(good):
    data = datasets.load("folder", data_dir=str(good), image_size=32)
    for index, path in enumerate(("val/ant/4.jpg", "val/bee/5.gif")):
        assert data.eval_name(index) == str(good / path)
        assert data.eval_file(index) == GOOD[path]


def test_channel_statistics_are_near_numpys(good):
    info = datasets.load("folder", data_dir=str(good), image_size=32).info
    crops = [pillow_center_crop(smooth_image(40 + n, 60, seed=n), 32) for n in (1, 2, 3)]
    pixels = np.stack(crops).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(info.mean, pixels.mean(axis=0), atol=1)
    np.testing.assert_allclose(info.std, pixels.std(axis=0), atol=1)
    assert (info.train_count, info.eval_count, info.classes) == (3, 2, 2)


def test_a_folder_below_home_is_found(good, monkeypatch):
    monkeypatch.setenv("HOME", str(good.parent))
    train, _, _ = load_folder(f"~/{good.name}", 16)
    assert len(train) == 3


def test_hidden_files_and_folders_are_ignored(good):
    hidden = {
        "train/ant/.DS_Store": b"no image",
        "train/.ipynb_checkpoints/1.jpg": photo(1),
        "val/bee/._5.gif": b"no image",
        ".git/train/ant/1.jpg": photo(1),
    }
    write_files(good, hidden)
    train, val, classes = load_folder(str(good), 16)
    assert (len(train), len(val), classes) == (3, 2, ["ant", "bee"])


def test_all_files_that_cannot_be_decoded_are_listed_in_one_error(good):
    write_files(good, BAD)
    with pytest.raises(ValueError) as error:
        load_folder(str(good), 16)
    message = str(error.value)
    assert message.startswith(f"{len(BAD)} of {len(GOOD) + len(BAD)} files cannot be decoded")
    assert "--skip_bad_images" in message
    listed = {line.split(":")[0].strip() for line in message.splitlines()[1:]}
    assert listed == {str(good / path) for path in BAD}
    assert f"{good / 'train/ant/empty.jpg'}: empty file" in message


def test_files_that_cannot_be_decoded_are_left_out_and_counted_when_asked(good, capsys):
    clean = [images_of(source) for source in load_folder(str(good), 16)[:2]]
    assert capsys.readouterr().out == ""
    write_files(good, BAD)
    train, val, _ = load_folder(str(good), 16, skip_bad_images=True)
    printed = capsys.readouterr().out
    assert printed.startswith(f"Left out {len(BAD)} of {len(GOOD) + len(BAD)} files")
    assert all(str(good / path) in printed for path in BAD)
    for source, expected in zip((train, val), clean, strict=True):
        for (image, label), (other, other_label) in zip(images_of(source), expected, strict=True):
            assert label == other_label
            np.testing.assert_array_equal(image, other)


def test_a_class_of_bad_images_only_is_named_even_when_they_are_left_out(good):
    write_files(good, {"train/wasp/1.jpg": photo(1)[:100], "val/wasp/1.jpg": photo(1)})
    with pytest.raises(
        ValueError, match=r"Every class folder must hold an image.*: \S+/train/wasp$"
    ):
        load_folder(str(good), 16, skip_bad_images=True)


def test_checking_a_folder_reads_no_image(good):
    write_files(good, BAD)
    _, classes = folder.check(str(good))
    assert classes == ["ant", "bee"]


def test_the_median_of_pixels_is_that_of_training_images_and_takes_no_notice_of_damage(good):
    assert folder.median_pixels(str(good)) == 42 * 60
    write_files(good, BAD)
    # Two more files, of 46 and 48 lines, are damaged behind their headers.
    assert folder.median_pixels(str(good)) == 43 * 60
