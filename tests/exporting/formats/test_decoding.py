"""Decoding image files inside a graph, against Pillow."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from image_files import PNG_MAGIC, chunk, claiming, encode, flat, grey_png, pillow_fit, smooth_image
from jpeg_files import ORIENTATIONS, turned_jpeg, with_scans
from PIL import Image
from tiny_nets import make_info

from keras_preact.data.augmentation import fit
from keras_preact.exporting.formats.decoding import is_decodable, make_decoder

SHAPE = (12, 10, 3)
RATIOS = (1.0, 256 / 224)

PHOTO = smooth_image(40, 31)
PNGS = {
    "colour": encode(PHOTO),
    "grey": encode(PHOTO, mode="L"),
    "palette": encode(PHOTO, mode="P"),
    "alpha": encode(PHOTO, mode="RGBA"),
    "grey and alpha": encode(PHOTO, mode="LA"),
    "black and white": encode(PHOTO, mode="1"),
    "landscape": encode(smooth_image(17, 90)),
    "portrait": encode(smooth_image(90, 17)),
    "small": encode(smooth_image(5, 4)),
    "a pixel": encode(smooth_image(1, 1)),
    "a line": encode(smooth_image(1, 70)),
}
JPEGS = {
    "colour": encode(PHOTO, "JPEG", quality=95, subsampling=0),
    "subsampled": encode(PHOTO, "JPEG", quality=90),
    "grey": encode(PHOTO, "JPEG", "L", quality=95),
    "progressive": encode(PHOTO, "JPEG", quality=95, progressive=True),
    "four colours": encode(PHOTO, "JPEG", "CMYK", quality=95),
    **{f"turned by {n}": turned_jpeg(PHOTO, n, quality=95, subsampling=0) for n in ORIENTATIONS},
    "turned, lower byte first": turned_jpeg(PHOTO, 6, "little", quality=95, subsampling=0),
}


def make(shape=SHAPE, resize_ratio=1.0, max_image_pixels=100_000):
    decode = tf.function(
        make_decoder(make_info(shape, resize_ratio=resize_ratio).preprocessing, max_image_pixels),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )

    def run(*files):
        images, errors = decode(tf.constant(files, tf.string))
        return images.numpy(), [error.decode() for error in errors.numpy()]

    return run


def accepted(decode, *files):
    """The images; asserts that all files are decoded."""
    images, errors = decode(*files)
    assert errors == [""] * len(files)
    return images


@pytest.fixture(scope="module")
def decode():
    """A decoder to SHAPE for images of at most 100,000 pixels."""
    return make()


def difference(left, right):
    assert left.shape == right.shape
    return np.abs(left.astype(int) - right.astype(int))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize_ratio", RATIOS)
def test_files_of_any_size_and_kind_become_what_pillow_makes_of_them(resize_ratio, channels):
    shape = (*SHAPE[:2], channels)
    decode = make(shape, resize_ratio)
    # TensorFlow decodes JPEGs faster and less exactly.
    for files, worst, mean in ((PNGS, 1, 0.3), (JPEGS, 7, 1.5)):
        images = accepted(decode, *files.values())
        assert images.dtype == np.uint8
        for (name, file), image in zip(files.items(), images, strict=True):
            differences = difference(image, pillow_fit(file, shape, resize_ratio))
            assert differences.max() <= worst, name
            assert differences.mean() <= mean, name
            np.testing.assert_array_equal(image, fit(file, shape, resize_ratio), err_msg=name)


def test_an_image_of_the_size_asked_for_is_not_changed(decode):
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    np.testing.assert_array_equal(accepted(decode, *map(encode, images)), images)


def test_of_16_bits_the_upper_8_count(decode):
    buffer = io.BytesIO()
    levels = np.arange(120, dtype=np.uint16).reshape(SHAPE[:2])
    Image.fromarray(levels * 257).save(buffer, "PNG")
    [image] = accepted(decode, buffer.getvalue())
    np.testing.assert_array_equal(image, np.repeat(levels[..., None], 3, axis=2))


def test_a_batch_may_be_empty(decode):
    images = accepted(decode)
    assert images.shape == (0, *SHAPE)
    assert images.dtype == np.uint8


GOOD = flat(7, 3, 4)


def refusal(decode, file):
    """The error of a file; asserts that those beside it are decoded, and that it is black."""
    images, errors = decode(GOOD, file, GOOD)
    assert errors[0] == errors[2] == ""
    np.testing.assert_array_equal(images[[0, 2]], np.full((2, *SHAPE), 7))
    np.testing.assert_array_equal(images[1], np.zeros(SHAPE))
    assert errors[1].isprintable() and errors[1]
    return errors[1]


def test_where_all_files_are_broken_all_have_an_error(decode):
    images, errors = decode(b"", GOOD[:-20])
    assert not images.any()
    assert errors == [
        "image_bytes must be JPEG or PNG files. Received another kind: a file of 0 bytes",
        f"An image file must be whole and undamaged. Received: a file of {len(GOOD) - 20} bytes",
    ]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_an_image_may_have_just_as_many_pixels_as_allowed(decode, file_format):
    [image] = accepted(decode, flat(90, 250, 400, file_format))
    np.testing.assert_array_equal(image, np.full(SHAPE, 90))
    message = refusal(decode, flat(90, 251, 400, file_format))
    assert "An image must have 1 to 100,000 pixels, and no more once it covers 12 x 10" in message
    assert "Received: a file of " in message
    assert "height and width [251 400]" in message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("transposed", [False, True])
def test_nor_may_a_thin_one_have_more_once_it_is_enlarged(decode, file_format, transposed):
    # To a height of 12, or a width of 10.
    length = 1000 if transposed else 694
    sides = {True: (length, 1), False: (1, length)}
    [image] = accepted(decode, flat(90, *sides[transposed], file_format))
    np.testing.assert_array_equal(image, np.full(SHAPE, 90))
    longer = (1001, 1) if transposed else (1, 695)
    assert "An image must have" in refusal(decode, flat(90, *longer, file_format))


def test_the_resize_ratio_counts_for_that_too():
    # To a height of 12, or of 12 * 256 / 224 = 13.7, which is rounded.
    file = flat(90, 1, 600)
    accepted(make(), file)
    assert "once it covers 14 x 11" in refusal(make(resize_ratio=256 / 224), file)


def test_a_jpeg_may_have_32_scans(decode):
    # The 10 scans of the progressive file, and repetitions of its last one.
    accepted(decode, with_scans(JPEGS["progressive"], 22))
    message = refusal(decode, with_scans(JPEGS["progressive"], 23))
    rule = "A JPEG must have at most 32 scans. Received one with more: a file of "
    assert rule in message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_header_is_believed_before_anything_is_decoded(decode, file_format):
    # The file holds none of the 400 million pixels, which a decoder would complain of.
    message = refusal(decode, claiming(flat(1, 8, 8, file_format), 20000, 20000))
    assert "height and width [20000 20000]" in message


def test_a_size_cannot_be_hidden_behind_another(decode):
    # Decoders skip unknown chunks, and would find 120,000 pixels.
    small = struct.pack(">II", 1, 1)
    file = grey_png(300, 400, before=chunk(b"prIv", small))
    assert Image.open(io.BytesIO(file)).size == (400, 300)
    assert "Received another kind: a file of" in refusal(decode, file)


@pytest.mark.parametrize("sides", [(0, 0), (0, 5), (5, 0), (2**32 - 5, 2**32 - 5), (2**31, 1)])
def test_sides_that_no_image_has_are_refused(decode, sides):
    refusal(decode, claiming(GOOD, *sides))


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\xff\xd8",
        PNG_MAGIC,
        b"an image",
        flat(7, 3, 4, "GIF"),
        flat(7, 3, 4, "BMP"),
        flat(7, 3, 4, "WEBP"),
        flat(7, 3, 4, "TIFF"),
    ],
    ids=["empty", "half of a JPEG's", "PNG's", "text", "GIF", "BMP", "WebP", "TIFF"],
)
def test_other_kinds_are_refused_by_their_first_bytes(decode, file):
    assert not is_decodable(file)
    message = refusal(decode, file)
    rule = "image_bytes must be JPEG or PNG files. Received another kind: "
    assert f"{rule}a file of {len(file)} bytes" in message


def test_what_is_taken_is_known_without_a_graph():
    for file in (*PNGS.values(), *JPEGS.values()):
        assert is_decodable(file)
