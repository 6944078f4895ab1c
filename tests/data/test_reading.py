"""Reasons why files, folders and images cannot be read; images of all kinds against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from PIL import Image
from sample_data import (
    decode,
    difference,
    encode,
    folder_of_images,
    load_folder,
    pillow_center_crop,
    smooth_image,
    write_files,
)

from keras_preact.data.reading import image_problem, list_folder, reason

IMAGE = smooth_image(60, 80)
PALETTE = Image.fromarray(IMAGE).quantize(200)
GREY = np.asarray(Image.fromarray(IMAGE).convert("L"))
TRANSLUCENT = np.dstack([IMAGE, np.arange(60 * 80).reshape(60, 80) % 256]).astype(np.uint8)


def saved(picture, file_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


# Name, file, and the colours it stands for: uint8 (60, 80, 3).
KINDS = {
    "grey.png": (encode(GREY), np.dstack([GREY] * 3)),
    "grey_alpha.png": (
        saved(Image.fromarray(TRANSLUCENT).convert("LA"), "PNG"),
        np.dstack([GREY] * 3),
    ),
    "rgba.png": (saved(Image.fromarray(TRANSLUCENT), "PNG"), IMAGE),
    "palette.png": (
        saved(PALETTE, "PNG"),
        np.asarray(PALETTE.convert("RGB")),
    ),
    # 257 is 65,535 / 255.
    "grey_16_bit.png": (
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        np.dstack([GREY] * 3),
    ),
    "rgb_16_bit.png": (tf.io.encode_png(IMAGE.astype(np.uint16) * 257).numpy(), IMAGE),
    "cmyk.jpg": (
        encode(IMAGE, "JPEG", "CMYK", quality=100),
        decode(encode(IMAGE, "JPEG", "CMYK", quality=100)),
    ),
    "grey.jpg": (encode(GREY, "JPEG", quality=100), np.dstack([GREY] * 3)),
    "grey.bmp": (encode(GREY, "BMP"), np.dstack([GREY] * 3)),
    "rgba.bmp": (saved(Image.fromarray(TRANSLUCENT), "BMP"), IMAGE),
    # TensorFlow ignores the palette of a BMP and takes the numbers of its colours for grey.
    "palette.bmp": (saved(PALETTE, "BMP"), np.dstack([np.asarray(PALETTE)] * 3)),
}

# Files that Pillow can decode and TensorFlow cannot.
REFUSED = {
    "one_bit.bmp": (encode(IMAGE, "BMP", "1"), "Number of channels"),
    "cmyk.tif": (encode(IMAGE, "TIFF", "CMYK"), "must be JPEG, PNG, GIF or BMP files"),
}


def test_a_folder_of_images_of_every_kind_is_brought_to_three_channels(tmp_path):
    folder_of_images(tmp_path, ("a", "b"))
    (tmp_path / "train" / "a" / "0.png").unlink()
    write_files(tmp_path, {f"train/a/{name}": data for name, (data, _) in KINDS.items()})
    train, _, _ = load_folder(str(tmp_path), 32)
    images = train.eval_images(tf.data.Dataset.range(len(KINDS)))
    for (image, label), name in zip(images.as_numpy_iterator(), sorted(KINDS), strict=True):
        assert (image.shape, label) == ((32, 32, 3), 0)
        # JPEG and rounding lose a little; another channel would differ by about 50.
        assert difference(image, pillow_center_crop(KINDS[name][1], 32)).mean() < 2, name
    random = train.train_batches(
        tf.data.Dataset.from_tensors((list(range(len(KINDS))), [[5, 6, 7, 8]] * len(KINDS))),
        "random_resized_crop",
    )
    assert next(iter(random))[0].shape == (len(KINDS), 32, 32, 3)


def test_images_whose_channels_tensorflow_cannot_decode_are_listed_with_the_reason(tmp_path):
    folder_of_images(tmp_path, ("a", "b"))
    write_files(tmp_path, {f"val/b/{name}": data for name, (data, _) in REFUSED.items()})
    with pytest.raises(ValueError, match=rf"^{len(REFUSED)} of") as error:
        load_folder(str(tmp_path), 32)
    lines = str(error.value).splitlines()[1:]
    for line, (name, (_, words)) in zip(lines, sorted(REFUSED.items()), strict=True):
        assert line.startswith(f"  {tmp_path}/val/b/{name}: ")
        assert words in line
        assert "{{" not in line
        assert "[Op" not in line


@pytest.mark.parametrize("name", KINDS)
def test_an_image_has_no_problem_until_it_is_cut_off(name):
    data = KINDS[name][0]
    assert image_problem(tf.constant(data)) is None
    assert image_problem(tf.constant(data[: len(data) // 2])).startswith("not an image, or damaged")
    assert image_problem(tf.constant(b"")) == "empty file"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent", "no such file or folder, or a link to none"),
        ("file", "not a folder"),
    ],
)
def test_a_folder_that_cannot_be_listed_is_named_with_its_rule(tmp_path, path, words):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"^The rule\. Received: {tmp_path}/{path}: {words}$"):
        list_folder(epath.Path(tmp_path / path), "The rule.")


def test_a_listing_is_sorted_and_leaves_out_hidden_names(tmp_path):
    for name in ("b", ".hidden", "a", "C"):
        (tmp_path / name).touch()
    assert [path.name for path in list_folder(epath.Path(tmp_path), "")] == ["C", "a", "b"]


def test_reasons_are_one_line_without_tensorflows_graph(tmp_path):
    errors = []
    for path in (tmp_path / "absent", tmp_path):
        try:
            tf.io.read_file(str(path))
        except tf.errors.OpError as error:
            errors.append(error)
    absent, is_folder = map(reason, errors)
    assert absent.startswith("no such file")
    assert is_folder == f"{tmp_path}; Is a directory"
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(OSError("cause unknown")) == "cause unknown"
    assert reason(PermissionError(13, "Permission denied")) == "permission denied"
