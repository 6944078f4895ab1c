"""Image files sent to `serving_bytes`, honest and hostile ones."""

import struct

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    animated_gif,
    chunk,
    claiming,
    encode,
    flat,
    grey_png,
    pillow_fit,
    smooth_image,
)
from jpeg_files import turned_jpeg, with_scans
from tiny_nets import SHAPE, export, make_info, probabilities

from keras_preact.data.augmentation import fit
from keras_preact.exporting.formats.saved_model import SessionModel

PHOTO = smooth_image(40, 31)


def make_linear(image_shape):
    """A classifier whose answers depend on each pixel."""
    images = keras.Input(image_shape)
    weights = keras.initializers.RandomNormal(stddev=0.15, seed=0)
    dense = keras.layers.Dense(7, kernel_initializer=weights, name="logits")
    return keras.Model(images, dense(keras.layers.Flatten()(images)))


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """(network, data, session) by channels and resize_ratio."""
    keras.utils.set_random_seed(0)
    root = tmp_path_factory.mktemp("nets")
    made = {}
    for channels, resize_ratio in ((3, 1.0), (1, 256 / 224)):
        info = make_info((*SHAPE[:2], channels), resize_ratio=resize_ratio)
        model = make_linear(info.image_shape)
        session = SessionModel(export(root / str(channels), model, info))
        made[channels] = model, info, session
    return made


@pytest.fixture(scope="module")
def session(nets):
    return nets[3][2]


@pytest.fixture(scope="module")
def ask(session):
    """The answer to files, by output."""
    return lambda *files: session("serving_bytes", image_bytes=np.array(files, object))


@pytest.fixture(scope="module")
def of_bytes(ask):
    """The probabilities of files, none of which is broken."""

    def run(*files):
        answer = ask(*files)
        assert not any(answer["error"])
        return answer["probabilities"]

    return run


@pytest.mark.parametrize("channels", [3, 1])
def test_files_are_answered_as_the_pixels_that_pillow_sees_in_them(nets, channels):
    model, info, session = nets[channels]
    modes = {"PNG": ("RGB", "L", "P", "RGBA", "LA", "1"), "JPEG": ("RGB", "L", "CMYK")}
    files = [encode(PHOTO, kind, mode) for kind in modes for mode in modes[kind]]
    files += [encode(PHOTO, "JPEG", progressive=True), encode(smooth_image(9, 8))]
    files += [turned_jpeg(PHOTO, turn) for turn in range(2, 9)]
    images = np.stack([pillow_fit(file, info.image_shape, info.resize_ratio) for file in files])
    got = session("serving_bytes", image_bytes=np.array(files, object))
    expected = probabilities(model, images, info)
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(got["probabilities"], expected, atol=0.05)
    # Pixels of a PNG differ by a rounding at most.
    np.testing.assert_allclose(got["probabilities"][:6], expected[:6], atol=0.01)
    # And exactly as evaluation brings them to size.
    images = np.stack([fit(file, info.image_shape, info.resize_ratio) for file in files])
    of_pixels = session("serving_default", images=images)
    np.testing.assert_array_equal(got.pop("classes"), of_pixels.pop("classes"))
    for name, value in of_pixels.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)


FLAT = {
    "a pixel": flat((90, 40, 200), 1, 1),
    "a pixel's JPEG": flat((90, 90, 90), 1, 1, "JPEG"),
    "a large one": flat((90, 40, 200), 900, 1100),
    "a line": flat((90, 40, 200), 1, 50_000),
    "a column": flat((90, 40, 200), 50_000, 1),
    "a line's JPEG": flat((90, 90, 90), 1, 50_000, "JPEG"),
    "16 bits": grey_png(30, 20, bits=16, value=90),
    "one bit": grey_png(30, 24, bits=1, value=255),
    "a palette of one": flat((255, 255, 255), 30, 20, mode="P"),
    "progressive": flat((90, 90, 90), 30, 20, "JPEG", progressive=True),
    "four colours": flat((90, 90, 90), 30, 20, "JPEG", "CMYK"),
}
COLOURS = {"16 bits": 90, "one bit": 255, "a palette of one": 255}


@pytest.mark.parametrize("name", FLAT)
def test_a_file_of_one_colour_is_answered_as_that_colour(session, of_bytes, name):
    is_grey = "JPEG" in name or name in ("progressive", "four colours")
    colour = COLOURS.get(name, 90 if is_grey else (90, 40, 200))
    image = np.full((1, *SHAPE), colour, np.uint8)
    np.testing.assert_allclose(of_bytes(FLAT[name]), session.predict(image), atol=1e-6)


PNG, JPEG = encode(PHOTO), encode(PHOTO, "JPEG")
DAMAGED = "must be whole and undamaged"
KIND, SIZE = "must be JPEG or PNG files. Received another kind", "1 to 5,000,000 pixels"
REFUSED = {
    "nothing": (b"", KIND),
    "text": (b"GET / HTTP/1.1", KIND),
    "base64": (b"iVBORw0KGgoAAAANSUhEUgAA", KIND),
    "an animation": (animated_gif(), KIND),
    "BMP": (encode(PHOTO, "BMP"), KIND),
    "WebP": (encode(PHOTO, "WEBP"), KIND),
    "a hidden size": (grey_png(9, 8, before=chunk(b"prIv", struct.pack(">II", 1, 1))), KIND),
    "a huge PNG's header": (claiming(PNG, 20_000, 20_000), SIZE),
    "a huge JPEG's header": (claiming(JPEG, 20_000, 20_000), SIZE),
    "20,000 scans": (
        with_scans(flat(9, 2000, 2000, "JPEG", progressive=True), 20_000),
        "at most 32 scans",
    ),
    "a huge PNG": (grey_png(20_000, 20_000, bits=1), SIZE),
    "what would be huge": (flat(9, 1, 65_000), SIZE),
    "half of a PNG": (PNG[: len(PNG) // 2], DAMAGED),
    "half of a JPEG": (JPEG[: len(JPEG) // 2], DAMAGED),
    "a JPEG's beginning": (JPEG[:20], DAMAGED),
    "a PNG of other sides": (claiming(PNG, 1000, 1000), DAMAGED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_all_else_has_an_error_in_words_and_harms_no_file_beside_it(ask, of_bytes, name):
    file, words = REFUSED[name]
    answer = ask(PNG, file, JPEG)
    first, line, last = (error.decode() for error in answer["error"])
    assert first == last == "" and words in line
    assert line.isprintable() and not set(line) & set("{}")
    assert f"a file of {len(file)} bytes" in line
    np.testing.assert_array_equal(answer["probabilities"][1], np.zeros(7))
    np.testing.assert_array_equal(answer["scores"][1], np.zeros(5))
    assert set(answer["classes"][1]) == {b""}
    np.testing.assert_allclose(answer["probabilities"][[0, 2]], of_bytes(PNG, JPEG), atol=1e-6)


def answered(ask, file):
    """Whether a file is answered and has no error; fails if the request does."""
    answer = ask(file)
    [got], [error] = answer["probabilities"], answer["error"]
    assert got.shape == (7,)
    assert got.sum() == (pytest.approx(1, abs=1e-5) if not error else 0)
    return not error


FUZZ = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@FUZZ
@given(st.sampled_from([b"", PNG[:8], PNG[:16], PNG[:33], JPEG[:3], JPEG[:20]]), st.binary())
def test_noise_is_refused(ask, beginning, noise):
    assert not answered(ask, beginning + noise)


@FUZZ
@given(st.sampled_from([PNG, JPEG]), st.data())
def test_a_file_that_ends_early_is_refused_but_for_what_says_that_it_ends(ask, file, data):
    length = data.draw(st.integers(0, len(file) - 1))
    # A PNG's last chunk, and a JPEG's last marker, hold no pixels.
    tail = 16 if file == PNG else 2
    assert answered(ask, file[:length]) <= (length >= len(file) - tail)


@FUZZ
@given(
    st.sampled_from([PNG, JPEG]),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_answered_or_refused(ask, file, changes):
    damaged = bytearray(file)
    for place, value in changes:
        # Most of them in the header.
        damaged[place % (len(file) if place > 350 else 40)] = value
    answered(ask, bytes(damaged))


@FUZZ
@given(
    st.sampled_from([PNG, JPEG]),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**16 - 1),
)
def test_a_header_of_any_sides_is_answered_or_refused(ask, file, height, width):
    if (height, width) != PHOTO.shape[:2]:
        # A JPEG with too few rows may still be decoded.
        assert not answered(ask, claiming(file, height, width)) or file == JPEG
