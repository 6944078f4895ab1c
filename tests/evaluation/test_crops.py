"""Other sizes and crops: ten crops beside a loop, nets at another size beside nets built for it."""

import dataclasses

import keras
import numpy as np
import pytest
from colour_net import NAMES, SQUARE, colour_model, write_colours
from image_encoding import encode, smooth_image

from keras_preact import ResNetV2
from keras_preact.data.augmentation import cover
from keras_preact.evaluation import EvaluateConfig, evaluate, models
from keras_preact.prediction import loading
from keras_preact.prediction.pipeline import ten_crops


def _net(size=16, **options):
    keras.utils.set_random_seed(0)
    model = ResNetV2(8, input_shape=(size, size, 3), classes=3, width_multiplier=0.5, **options)
    shape = {"image_shape": (size, size, 3), "mean": (128.0,) * 3, "std": (64.0,) * 3}
    model.preprocessing = SQUARE.replace(**shape, resize_ratio=1.25)
    return model


def _config(**options):
    return EvaluateConfig(model="net", **options)


@pytest.mark.parametrize(("height", "width"), [(30, 40), (40, 30), (20, 20), (64, 21)])
def test_ten_crops_are_those_of_a_loop(height, width):
    preprocessing = SQUARE.replace(image_shape=(16, 16, 3), resize_ratio=1.25)
    file = encode(smooth_image(height, width))
    found = ten_crops(preprocessing).read(file)
    image = cover(file, (16, 16, 3), 1.25).numpy()
    high, wide, _ = image.shape
    assert min(high, wide) == 20
    expected = []
    for mirrored in (False, True):
        for top, left in (
            *((0, 0), (0, wide - 16), (high - 16, 0), (high - 16, wide - 16)),
            ((high - 16) // 2, (wide - 16) // 2),
        ):
            crop = np.empty((16, 16, 3), np.uint8)
            for row in range(16):
                for column in range(16):
                    place = 15 - column if mirrored else column
                    crop[row, column] = image[top + row, left + place]
            expected.append(crop)
    np.testing.assert_array_equal(found, expected)


def test_the_probabilities_of_ten_crops_are_averaged(tmp_path):
    folder = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.png").write_bytes(encode(smooth_image(20, 31, seed)))
    model, options = _net(), {"data_dir": str(folder), "resamples": 0, "batch_size": 20}
    found = evaluate(model, crops=10, **options)
    preprocessing = model.preprocessing
    for row, seed in zip(found.answers.probabilities, (2, 1, 0), strict=True):
        crops = ten_crops(preprocessing).read(encode(smooth_image(20, 31, seed)))
        logits = model(preprocessing.normalize(crops), training=False)
        np.testing.assert_allclose(row, np.mean(keras.ops.softmax(logits), axis=0), rtol=1e-4)
    assert not np.allclose(
        found.answers.probabilities, evaluate(model, **options).answers.probabilities
    )


@pytest.mark.parametrize("unit", ["full_preactivation", "original"])
def test_a_net_at_another_size_is_the_net_built_for_it(unit):
    before, large = _net(unit=unit), _net(24, unit=unit)
    large.set_weights(before.get_weights())
    large.preprocessing = large.preprocessing.replace(resize_ratio=1.0)
    found = models.load(before, _config(image_size=24))
    # As in the paper: crops of 320 pixels from a shorter side of 320.
    assert found.preprocessing == large.preprocessing
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    expected = loading.load(large).probabilities(images)
    np.testing.assert_allclose(found.classifier.probabilities(images), expected, rtol=1e-5)
    assert before.input_shape == (None, 16, 16, 3) and before.preprocessing is not None


@pytest.mark.parametrize(
    ("options", "size", "ratio"),
    [
        ({}, 16, 1.25),
        ({"resize": 32}, 16, 2.0),
        ({"image_size": 16}, 16, 1.25),
        ({"image_size": 32}, 32, 1.0),
        ({"image_size": 32, "resize": 40}, 32, 1.25),
        ({"image_size": 32, "crops": 10}, 32, 1.25),
    ],
    ids=str,
)
def test_the_flags_decide_on_crop_and_resizing(options, size, ratio):
    preprocessing = models.load(_net(), _config(**options)).preprocessing
    assert preprocessing.image_shape == (size, size, 3)
    assert preprocessing.resize_ratio == ratio


def test_a_net_at_another_size_is_evaluated_and_explained(tmp_path):
    folder = write_colours(tmp_path / "photos", dict.fromkeys(NAMES, 3))
    found = evaluate(
        _net(), data_dir=str(folder), image_size=24, resamples=20, output=str(tmp_path / "report")
    )
    assert found.model.preprocessing.image_shape == (24, 24, 3)
    assert "There is no Grad-CAM" not in (tmp_path / "report" / "report.html").read_text()


def test_what_takes_one_size_alone_is_refused():
    flat = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    classifier = loading.load(flat, preprocessing=_net().preprocessing)
    for each, words in (
        (colour_model(), "an export for images of 8 x 8, and image_size=24"),
        (classifier, "whose layers fit 16 x 16 alone"),
    ):
        with pytest.raises(ValueError, match=words):
            models.load(each, _config(image_size=24))
    # Another resizing suits all.
    found = models.load(colour_model(), _config(resize=10)).preprocessing
    assert (found.image_shape, found.resize_ratio) == ((8, 8, 3), 1.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crops": 5}, "crops must be 1 or 10"),
        ({"image_size": 32, "resize": 31}, "resize must be at least image_size"),
        ({"divide": (80, 30)}, "100 together"),
        ({"split": "80,10,10"}, "divide takes the percentages"),
        ({"split": "validation"}, "Did you mean 'val'|split must be one of"),
        ({"bins": 0}, "bins must be at least 1"),
        ({"resamples": -1}, "resamples must be at least 0"),
    ],
    ids=str,
)
def test_flags_outside_their_rules_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        _config(**options)


def test_a_resize_below_the_models_crop_is_refused():
    with pytest.raises(ValueError, match="at least the size of the crop, 8"):
        models.load(colour_model(), _config(resize=7))
    assert dataclasses.replace(_config(), resize=8).resize == 8
