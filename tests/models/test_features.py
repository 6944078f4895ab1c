"""Features of a network by stage, unit and stride, raw, pre-activated and dilated."""

import keras
import numpy as np
import pytest
from random_weights import randomize

import keras_preact
from keras_preact.layers import ConstantScaling

IMAGES = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")


def network(depth=20, **options):
    model = keras_preact.ResNetV2(depth, **{"input_shape": (None, None, 3), **options})
    randomize(model, seed=1)
    return model


def features(model, *taps, images=IMAGES, **options):
    extractor = keras_preact.feature_extractor(model, taps, **options)
    return {tap: np.array(value) for tap, value in extractor(images).items()}


def test_stages_units_and_strides_are_signals_between_units():
    model = network()
    got = features(model, "stem", "stage1", "stage2_unit3", "stride2", "stage3", "stride4")
    for tap, layer in {
        "stem": "stem_conv",
        "stage1": "stage1_unit3",
        "stage2_unit3": "stage2_unit3",
        "stride2": "stage2_unit3",
        "stage3": "stage3_unit3",
        "stride4": "stage3_unit3",
    }.items():
        expected = keras.Model(model.input, model.get_layer(layer).output)(IMAGES)
        np.testing.assert_array_equal(got[tap], expected)


def test_preactivated_features_are_the_relu_of_the_next_bn_in_numpy():
    model = network()
    got = features(model, "stage1", "stage1:preactivated", "stage3", "stage3:preactivated")
    bns = {1: model.get_layer("stage2_unit1").preactivation[0], 3: model.get_layer("head_bn")}
    for stage, bn in bns.items():
        gamma, beta, mean, variance = (np.array(v, np.float64) for v in bn.get_weights())
        x = got[f"stage{stage}"].astype(np.float64)
        expected = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
        np.testing.assert_allclose(got[f"stage{stage}:preactivated"], expected, atol=2e-4)


def test_in_the_keras_layout_a_stride_ends_before_the_stage():
    model = network(18, layout="keras")
    got = features(model, "stage1", "stage1_unit1", "stride4", "stride8", "stage1:preactivated")
    np.testing.assert_array_equal(got["stride4"], got["stage1_unit1"])
    assert got["stage1"].shape[1] == got["stage1:preactivated"].shape[1] == 64 // 8
    assert got["stride8"].shape == (2, 8, 8, 128)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 18},
        {"depth": 18, "layout": "timm"},
        {"depth": 18, "layout": "keras"},
        pytest.param({"depth": 50, "unit": "original"}, marks=pytest.mark.slow),
        pytest.param({"depth": 50, "layout": "keras"}, marks=pytest.mark.slow),
        {"depth": 29, "block": "bottleneck", "input_shape": (64, 64, 3)},
        {"depth": 20, "shortcut": ConstantScaling(0.7, 0.3)},
    ],
    ids=lambda options: "-".join(map(str, options.values()))[:40].partition(" object")[0],
)
def test_dilated_features_at_every_stride_th_pixel_are_those_of_the_network(options):
    model = network(**options)
    last = 4 if model.get_layer("stem_conv").strides == (1, 1) else 32
    expected = features(model, f"stride{last}")[f"stride{last}"]
    for output_stride in (last // 2, last // 4):
        dense = features(model, "stage3", f"stride{output_stride}", output_stride=output_stride)
        dense = dense[f"stride{output_stride}"]
        assert dense.shape[1] == 64 // output_stride
        step = last // output_stride
        np.testing.assert_allclose(
            dense[:, ::step, ::step], expected, atol=1e-4 * np.abs(expected).max()
        )


def test_an_extractor_shares_variables_and_a_dilated_one_has_copies():
    model = network()
    shared = keras_preact.feature_extractor(model, ["stage1:preactivated"])
    copied = keras_preact.feature_extractor(model, ["stage1"], output_stride=2)
    before = np.array(copied(IMAGES)["stage1"])
    own = {id(variable) for variable in model.variables}
    assert {id(variable) for variable in shared.variables} <= own
    assert not {id(variable) for variable in copied.variables} & own
    model.get_layer("stem_conv").kernel.assign_add(model.get_layer("stem_conv").kernel)
    assert not np.array_equal(shared(IMAGES)["stage1:preactivated"], before)
    np.testing.assert_array_equal(copied(IMAGES)["stage1"], before)


def test_an_extractor_is_saved_and_comes_back(tmp_path):
    extractor = keras_preact.feature_extractor(
        network(), ["stage1:preactivated", "stage2", "stage3:preactivated"], output_stride=2
    )
    extractor.save(tmp_path / "features.keras")
    loaded = keras.models.load_model(tmp_path / "features.keras")
    for tap, expected in extractor(IMAGES).items():
        np.testing.assert_array_equal(loaded(IMAGES)[tap], expected)


@pytest.mark.parametrize(
    ("taps", "options", "words"),
    [
        (["stage4"], {}, "tap must be one of stem, .*stage3.* Received: tap='stage4'"),
        ([], {}, "taps must be one or more, each once"),
        (["stage1", "stage1"], {}, "each once"),
        (["stage1"], {"output_stride": 3}, "output_stride must be one of 1, 2, 4"),
        (["stride4"], {"output_stride": 2}, "tap must be one of .* Received: tap='stride4'"),
    ],
)
def test_unknown_taps_and_strides_are_refused(taps, options, words):
    with pytest.raises(ValueError, match=words):
        keras_preact.feature_extractor(network(), taps, **options)


def test_units_without_preactivation_have_no_preactivated_features():
    with pytest.raises(ValueError, match=r":preactivated needs a BN or ReLU .*'stage1:preact"):
        keras_preact.feature_extractor(network(unit="original"), ["stage1:preactivated"])


def test_other_models_are_refused():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs), name="flat")
    with pytest.raises(ValueError, match=r"residual units named stage1_unit1 .* flat"):
        keras_preact.feature_extractor(model, ["stage1"])
