"""Frames of GIFs, against Pillow."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_data import smooth_image

from keras_preact.data import gif, reading

FRAMES = [Image.fromarray(smooth_image(30, 40, seed)) for seed in range(3)]
ANIMATED = "animated GIF, of which TensorFlow would decode every frame"


def saved(frames, **options):
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


SINGLE = {
    "as it is": saved(FRAMES[:1]),
    "of two colours": saved([FRAMES[0].convert("1")]),
    "grey": saved([FRAMES[0].convert("L")]),
    "interlaced": saved(FRAMES[:1], interlace=1),
    "with a comment": saved(FRAMES[:1], comment=b"by hand, " * 100),
    "that shows for a second": saved(FRAMES[:1], duration=1000, loop=0),
    "with a transparent colour": saved([FRAMES[0].quantize(16)], transparency=3),
    "large": saved([Image.fromarray(smooth_image(900, 1200))]),
}
MOVING = {
    "two frames": saved(FRAMES[:2]),
    "three frames": saved(FRAMES),
    "frames with delays": saved(FRAMES, duration=[100, 200, 300], loop=0, comment=b"moves"),
    "a small second frame": saved([FRAMES[0], FRAMES[0].copy().point(lambda v: v // 2)]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_gif_of_one_frame_is_an_image(name):
    assert Image.open(io.BytesIO(SINGLE[name])).n_frames == 1
    assert gif.problem(SINGLE[name]) is None
    assert reading.image_problem(tf.constant(SINGLE[name])) is None


@pytest.mark.parametrize("name", MOVING)
def test_an_animated_gif_is_refused_and_not_decoded(name, monkeypatch):
    assert Image.open(io.BytesIO(MOVING[name])).n_frames > 1
    assert gif.problem(MOVING[name]) == ANIMATED
    monkeypatch.setattr(reading.tf.io, "decode_image", lambda *a, **o: pytest.fail("decoded"))
    assert reading.image_problem(tf.constant(MOVING[name])) == ANIMATED


def test_150_large_frames_are_refused_at_once():
    # To decode them takes minutes.
    frame = Image.fromarray(np.full((5000, 5000), 7, np.uint8))
    head = saved([frame])
    start = head.index(b"\x2c", 13 + 3 * 256)
    file = head[:start] + head[start:-1] * 150 + b"\x3b"
    assert reading.image_problem(tf.constant(file)) == ANIMATED


def test_a_frame_larger_than_its_canvas_is_refused():
    file = SINGLE["as it is"]
    start = file.index(struct.pack("<HHHH", 0, 0, 40, 30)) + 4
    for sides in ((65535, 65535), (40, 31), (41, 30)):
        larger = file[:start] + struct.pack("<HH", *sides) + file[start + 4 :]
        assert f"a frame of {sides[::-1]} pixels" in gif.problem(larger)
        assert "more than its canvas of (30, 40)" in reading.image_problem(tf.constant(larger))


def test_a_damaged_gif_is_told_by_what_comes_before_the_damage():
    for length in range(6, len(SINGLE["as it is"]), 7):
        assert gif.problem(SINGLE["as it is"][:length]) is None
    second = MOVING["two frames"].rindex(b"\x2c")
    assert gif.problem(MOVING["two frames"][: second + 12]) == ANIMATED
