"""Photographs brought upright, against Pillow's `exif_transpose`."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_files import (
    BYTE_ORDERS,
    ORIENTATION,
    ORIENTATIONS,
    UPRIGHT,
    exif,
    segment,
    turned_by,
    turned_jpeg,
    with_segments,
)
from PIL import Image, ImageOps
from sample_data import difference, encode, pillow_center_crop, smooth_image

from keras_preact.data.augmentation import EVAL_RESIZE_RATIO, fit, random_resized_crop
from keras_preact.data.limits import problem
from keras_preact.data.orientation import orient, orientation, stored_window

PHOTO = smooth_image(90, 120)
JPEG = encode(PHOTO, "JPEG", subsampling=0, quality=95)
ALL = [(turn, order) for order in BYTE_ORDERS for turn in ORIENTATIONS]


def upright_by_pillow(pixels, turn):
    """Pillow's upright image of these pixels, stored without loss in this orientation."""
    tags = Image.Exif()
    tags[ORIENTATION] = turn
    file = encode(np.asarray(pixels), exif=tags)
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))


def pillow_orientation(file):
    return Image.open(io.BytesIO(file)).getexif().get(ORIENTATION, UPRIGHT)


@pytest.mark.parametrize(("turn", "order"), ALL)
def test_a_photograph_is_brought_upright_as_pillow_does(turn, order):
    file = turned_jpeg(PHOTO, turn, order)
    assert orientation(file) == pillow_orientation(file) == turn
    stored = tf.io.decode_jpeg(file, channels=3)
    expected = upright_by_pillow(stored, turn)
    np.testing.assert_array_equal(orient(stored, turn), expected)
    np.testing.assert_array_equal(fit(file, expected.shape, 1.0), expected)

    # Resized like an image that was stored upright.
    def center_crop(file):
        return fit(file, (56, 56, 3), EVAL_RESIZE_RATIO).numpy()

    assert difference(center_crop(file), pillow_center_crop(expected, 56)).max() <= 1
    upright = center_crop(encode(expected))
    assert difference(center_crop(file), upright).max() <= 1


@pytest.mark.parametrize(("turn", "order"), ALL)
def test_random_crops_are_those_of_the_upright_photograph(turn, order):
    # Only the window of a JPEG is decoded, and then turned.
    file = turned_jpeg(PHOTO, turn, order, subsampling=0, quality=95)
    upright = encode(upright_by_pillow(tf.io.decode_jpeg(file, channels=3), turn))
    crop = tf.function(lambda file, draws: random_resized_crop(file, draws, 48))
    for seed in range(8):
        draws = tf.constant([seed, 6, seed % 2])
        assert difference(crop(file, draws).numpy(), crop(upright, draws).numpy()).mean() < 1


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_a_window_of_the_upright_image_is_found_in_the_stored_one(turn):
    stored = tf.reshape(tf.range(7 * 5 * 3), [7, 5, 3])
    upright = orient(stored, turn).numpy()
    height, width = upright.shape[:2]
    for top, left, tall, wide in ((0, 0, height, width), (1, 2, 3, 2), (3, 0, 1, 4)):
        window = [top, left, tall, wide]
        y, x, h, w = stored_window(tf.constant(window), [height, width], turn).numpy()
        found = orient(stored[y : y + h, x : x + w], turn)
        np.testing.assert_array_equal(found, upright[top : top + tall, left : left + wide])


def test_without_metadata_nothing_changes():
    np.testing.assert_array_equal(fit(JPEG, PHOTO.shape, 1.0), tf.io.decode_jpeg(JPEG))
    upright = turned_jpeg(PHOTO, UPRIGHT, subsampling=0, quality=95)
    np.testing.assert_array_equal(fit(upright, PHOTO.shape, 1.0), tf.io.decode_jpeg(JPEG))


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP"])
def test_files_of_other_kinds_are_taken_as_they_are_stored(file_format):
    assert orientation(encode(PHOTO, file_format)) == UPRIGHT
    # Also a PNG with the chunk eXIf.
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    file = encode(PHOTO, "PNG", exif=tags)
    assert pillow_orientation(file) == 6
    np.testing.assert_array_equal(fit(file, PHOTO.shape, 1.0), PHOTO)


TURNED = exif([turned_by(6)])
OTHERS = [(tag, 3, 1, bytes(4)) for tag in range(0x100, 0x100 + 40) if tag != ORIENTATION]
FOUND = {
    "alone": (TURNED,),
    "behind others": (exif([*OTHERS, turned_by(6)]),),
    "behind others, the lower byte first": (exif([*OTHERS, turned_by(6, "little")], "little"),),
    "before others": (exif([turned_by(6), *OTHERS]),),
    "in a directory further behind": (exif([turned_by(6)], offset=5000),),
    "at an odd place": (exif([turned_by(6, "little")], "little", offset=41),),
    "behind a comment": (segment(0xFE, b"by hand"), TURNED),
    "behind profiles": (segment(0xE2, b"ICC_PROFILE\0" + bytes(65000)),) * 3 + (TURNED,),
    "before another": (TURNED, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")),
    "before what is no metadata": (TURNED, segment(0xED, b"Photoshop 3.0\0" + JPEG[:300])),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_orientation_is_found_wherever_cameras_and_programs_put_it(name):
    for file in (
        with_segments(JPEG, *FOUND[name]),
        with_segments(JPEG[:2] + JPEG[20:], *FOUND[name]),
    ):
        assert orientation(file) == pillow_orientation(file) == 6


def changed(part, replacement):
    assert part in TURNED
    return TURNED.replace(part, replacement)


NONSENSE = {
    "no entry": exif([]),
    "other entries alone": exif(OTHERS),
    "orientation 0": exif([turned_by(0)]),
    "orientation 9": exif([turned_by(9)]),
    "orientation 0x0600": exif([turned_by(0x600)]),
    "orientation 0x0106": exif([turned_by(0x106)]),
    "a directory behind the end": changed(b"\0\0\0\x08", b"\0\0\xff\xff"),
    "a directory at the end": changed(b"\0\0\0\x08", b"\0\0\0\x16"),
    "a directory before the beginning": changed(b"\0\0\0\x08", b"\xff\xff\xff\xf8"),
    "the smallest of numbers": changed(b"\0\0\0\x08", b"\x80\0\0\0"),
    "65,535 entries, of which none is there": exif([], count=65535),
    "fewer entries than there are": exif([*OTHERS, turned_by(6)], count=3),
    "an entry cut off": segment(0xE1, TURNED[4:-7]),
    "a directory cut off": segment(0xE1, TURNED[4:-18]),
    "a header cut off": segment(0xE1, TURNED[4:13]),
    "nothing": segment(0xE1, b"Exif\0\0"),
    "neither order": changed(b"MM\0*", b"MN\0*"),
    "the other order": changed(b"MM\0*", b"II*\0"),
    "no TIFF": changed(b"MM\0*", b"MM\0+"),
    "text": exif([(ORIENTATION, 2, 1, b"\0\x06\0\0")]),
    "two numbers": exif([(ORIENTATION, 3, 2, b"\0\x06\0\x06")]),
    "another kind of segment": segment(0xE2, TURNED[4:]),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_metadata_that_make_no_sense_say_nothing(name):
    file = with_segments(JPEG, NONSENSE[name])
    assert orientation(file) == UPRIGHT
    np.testing.assert_array_equal(fit(file, PHOTO.shape, 1.0), tf.io.decode_jpeg(JPEG))


def test_65535_entries_harm_nobody():
    # More entries than a segment has room for; the orientation is the last.
    file = with_segments(JPEG, exif([*OTHERS, turned_by(6)], count=65535))
    assert orientation(file) == 6
    many = exif([turned_by(8), *[(1, 3, 1, bytes(4))] * 5000], count=65535)
    assert orientation(with_segments(JPEG, many)) == 8


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_a_file_that_ends_early_is_no_error(length):
    assert 1 <= orientation(with_segments(JPEG, TURNED)[:length]) <= 8


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_metadata_are_read_or_ignored(changes):
    file = bytearray(with_segments(JPEG, exif([*OTHERS[:2], turned_by(6)])))
    for place, value in changes:
        file[2 + place] = value
    assert 1 <= orientation(bytes(file)) <= 8


def test_the_pixels_that_a_thin_photograph_has_once_enlarged_are_those_of_the_upright_one():
    # To a height of 12, or a width of 10.
    stored = np.full((1, 900, 3), 90, np.uint8)
    for turn, is_refused in ((1, True), (3, True), (6, False), (8, False)):
        why = problem(turned_jpeg(stored, turn), (12, 10), max_image_pixels=100_000)
        assert bool(why.numpy()) == is_refused
