"""Files that must not be decoded, known by their headers."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from jpeg_files import segment, with_scans, with_segments
from PIL import Image
from sample_data import encode, smooth_image

from keras_preact.data import limits
from keras_preact.data.limits import MAX_IMAGE_PIXELS, MAX_SCANS, admitted, problem
from keras_preact.data.reading import image_problem

PHOTO = smooth_image(40, 31)
COVERED = (12, 12)
PIXELS = "An image must have 1 to 50,000,000 pixels, and no more once it covers 12 x 12."
SCANS = f"A JPEG must have at most {MAX_SCANS} scans. Received one with more: a file of "
KINDS = "Images must be JPEG, PNG, GIF or BMP files. Received another kind: a file of "


def why(file, **options):
    return problem(tf.constant(file), COVERED, **options).numpy().decode()


def flat(height, width, file_format, mode="L", **options):
    return encode(np.full((height, width), 90, np.uint8), file_format, mode, **options)


def count_scans(jpeg):
    """Counts the scans of a JPEG by the segments that Pillow reads before each."""
    return sum(jpeg[place : place + 2] == b"\xff\xda" for place in range(len(jpeg)))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_ordinary_jpegs_with_an_ordinary_thumbnail_are_admitted(mode):
    options = {"progressive": True, "quality": 95}
    thumbnail = encode(smooth_image(16, 16), "JPEG", **options)
    metadata = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + thumbnail)
    file = with_segments(encode(PHOTO, "JPEG", mode, **options), metadata)
    assert count_scans(file) >= {"RGB": 20, "L": 16, "CMYK": 28}[mode]
    assert why(file) == ""
    assert image_problem(tf.constant(file)) is None


def test_bytes_of_metadata_that_look_like_a_scan_are_none():
    profile = segment(0xE2, np.random.default_rng(0).bytes(60_000).replace(b"\xff\xda\0", b""))
    markers = segment(0xFE, b"\xff\xda\xff\xda\x01" * 5000)
    assert why(with_segments(encode(PHOTO, "JPEG"), profile, markers)) == ""


def test_a_jpeg_may_have_just_as_many_scans_as_allowed():
    file = encode(PHOTO, "JPEG", progressive=True)
    assert count_scans(file) == 10
    assert why(with_scans(file, MAX_SCANS - 10)) == ""
    more = with_scans(file, MAX_SCANS - 9)
    assert why(more) == f"{SCANS}{len(more)} bytes, height and width [40 31]"


def test_a_scan_repeated_20000_times_is_refused_at_once():
    # To decode it takes a minute and more.
    file = with_scans(flat(2000, 2000, "JPEG", "RGB", progressive=True), 20_000)
    assert 200_000 < len(file) < 400_000
    assert image_problem(tf.constant(file)).startswith(f"{SCANS}{len(file)} bytes")
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 32 scans"):
        admitted(tf.constant(file), COVERED)


# The longest side that a line of one pixel may have, to cover 12 pixels.
LONGEST = MAX_IMAGE_PIXELS // 12**2


def test_the_pixels_of_a_thin_image_are_those_that_it_has_once_enlarged():
    assert LONGEST == 347_222
    # A JPEG has room for 65,535; of 12 x 12 pixels a line of 20,000 becomes one of 240,000.
    for file_format in ("PNG", "BMP"):
        for sides in ((1, LONGEST), (LONGEST, 1)):
            assert why(flat(*sides, file_format)) == ""
        for sides in ((1, LONGEST + 1), (LONGEST + 1, 1)):
            file = flat(*sides, file_format)
            found = f"a file of {len(file)} bytes, height and width [{sides[0]} {sides[1]}]"
            assert why(file) == f"{PIXELS} Received: {found}"
    for file_format in ("JPEG", "GIF"):
        file = tf.constant(flat(1, 20_000, file_format))
        assert problem(file, COVERED) == ""
        message = problem(file, (256, 256)).numpy().decode()
        assert "no more once it covers 256 x 256" in message
        assert "height and width [1 20000]" in message


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_image_may_have_just_as_many_pixels_as_allowed(file_format):
    file = flat(70, 30, file_format)
    assert why(file, max_image_pixels=2100) == ""
    assert "[70 30]" in why(file, max_image_pixels=2099)


def test_a_header_is_believed_before_anything_is_decoded(monkeypatch):
    rows = zlib.compress(b"\0" * 100)
    sides = struct.pack(">II", 20_000, 20_000)
    png = flat(9, 9, "PNG")
    png = png[:16] + sides + png[24:33] + struct.pack(">I", len(rows)) + b"IDAT" + rows
    gif, bmp = flat(9, 9, "GIF"), flat(9, 9, "BMP")
    gif = gif[:6] + struct.pack("<HH", 20_000, 20_000) + gif[10:]
    # Upside down, too.
    bmps = [bmp[:18] + struct.pack("<ii", 20_000, sign * 20_000) + bmp[26:] for sign in (1, -1)]
    jpeg = flat(9, 9, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg = jpeg[:start] + struct.pack(">HH", 20_000, 20_000) + jpeg[start + 4 :]
    for name in ("decode_image", "decode_jpeg"):
        monkeypatch.setattr(limits.tf.io, name, lambda *a, **o: pytest.fail("decoded"))
    for file in (png, gif, *bmps, jpeg):
        assert "height and width [20000 20000]" in image_problem(tf.constant(file))


@pytest.mark.parametrize("sides", [(0, 0), (0, 5), (5, 0), (2**32 - 5, 2**32 - 5), (2**31, 1)])
def test_sides_that_no_image_has_are_refused(sides):
    png = flat(9, 9, "PNG")
    assert why(png[:16] + struct.pack(">II", *sides) + png[24:]).startswith(PIXELS)
    bmp = flat(9, 9, "BMP")
    if sides[0] in (0, 2**31):
        assert why(bmp[:18] + struct.pack("<II", *sides) + bmp[26:]).startswith(PIXELS)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "ICO", "PPM"])
def test_kinds_whose_cost_is_not_known_are_refused(kind):
    # TensorFlow decodes some of them.
    file = encode(smooth_image(16, 16), kind)
    assert why(file) == f"{KINDS}{len(file)} bytes"
    assert image_problem(tf.constant(file)) == f"{KINDS}{len(file)} bytes"


@pytest.mark.parametrize("file", [b"", b"B", b"BM", b"GIF8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8"])
def test_a_beginning_is_no_image(file):
    assert why(file).startswith(("Images must be", "An image must have"))


def test_a_jpeg_without_a_size_is_damaged():
    for file in (b"\xff\xd8\xff", encode(PHOTO, "JPEG")[:30]):
        assert image_problem(tf.constant(file)).startswith("not an image, or damaged (Invalid JPEG")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_admitted_file_is_returned_unchanged(file_format):
    file = encode(PHOTO, file_format)
    assert admitted(tf.constant(file), COVERED).numpy() == file
    assert Image.open(io.BytesIO(file)).size == (31, 40)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_height_and_width_are_those_of_the_header(file_format):
    assert limits.sides(tf.constant(flat(17, 31, file_format))).numpy().tolist() == [17, 31]


def test_no_image_has_no_sides():
    assert limits.sides(tf.constant(b"notes")).numpy().tolist() == [0, 0]
