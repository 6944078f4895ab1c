"""ResNetV2 nets of keras.applications compute here what they compute there."""

import h5py
import keras
import numpy as np
import pytest
from keras_nets import build, images, save

from keras_preact.models.foreign import convert

LAST_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FILES = ("net.keras", "net.h5", "alone.h5", "net.weights.h5")


def check_outputs(theirs, ours, x):
    expected = theirs(x).numpy()
    assert 0.5 < np.abs(expected).max() < 50
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=0, atol=1e-4)


def check_stages(theirs, ours, depth, x):
    """Compares the raw signal after each stage."""
    ends = list(enumerate(LAST_UNITS[depth], 1))
    outputs = [theirs.get_layer(f"conv{stage + 1}_block{last}_out").output for stage, last in ends]
    mine = [ours.get_layer(f"stage{stage}_unit{last}").output for stage, last in ends]
    pairs = zip(
        keras.Model(theirs.inputs[0], outputs)(x),
        keras.Model(ours.inputs[0], mine)(x),
        strict=True,
    )
    for expected, found in pairs:
        assert expected.shape == found.shape
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def net():
    return build(50, (75, 75, 3), classes=7)


@pytest.fixture(scope="module")
def converted(net, tmp_path_factory):
    return convert(save(net, tmp_path_factory.mktemp("keras") / "net.keras"))


def test_outputs_and_the_signal_after_each_stage_are_theirs(net, converted):
    check_outputs(net, converted, images(2, 75, 75, 3))
    check_stages(net, converted, 50, images(1, 75, 75, 3))


@pytest.mark.parametrize("name", FILES[1:])
def test_every_kind_of_file_gives_the_same_network(net, converted, name, tmp_path):
    other = convert(save(net, tmp_path / name))
    assert other.arguments == converted.arguments
    for mine, first in zip(other.get_weights(), converted.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, first)


def test_the_classifier_may_have_its_name_in_the_published_files(net, tmp_path):
    path = save(net, tmp_path / "alone.h5")
    with h5py.File(path, "r+") as file:
        # As Keras 2 wrote them.
        file.move("predictions", "probs")
        layers = [name.replace("predictions", "probs") for name in file.attrs["layer_names"]]
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name in layers:
            weights = file[name].attrs["weight_names"]
            file[name].attrs["weight_names"] = [f"{weight}:0".encode() for weight in weights]
            for weight in weights:
                file[name].move(weight, f"{weight}:0")
    x = images(1, 75, 75, 3)
    np.testing.assert_allclose(convert(path)(x), net(x), rtol=0, atol=1e-4)


def test_preprocessing_is_that_of_keras(converted):
    preprocessing = converted.preprocessing
    x = np.random.default_rng(0).integers(0, 256, size=(1, 4, 4, 3)).astype("float32")
    expected = keras.applications.resnet_v2.preprocess_input(x.copy())
    np.testing.assert_allclose(preprocessing.normalize(x), expected, atol=1e-6)
    assert (preprocessing.resize_ratio, preprocessing.interpolation) == (1, "bilinear")


def test_without_the_top_the_feature_map_is_theirs(tmp_path):
    net = build(50, (75, 75, 3), include_top=False)
    ours = convert(save(net, tmp_path / "net.weights.h5"))
    x = images(1, 75, 75, 3)
    expected = net(x).numpy()
    assert ours(x).shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours(x) / scale, expected / scale, rtol=0, atol=1e-5)


def test_a_net_of_the_first_version_strides_on_the_1x1_and_is_refused(tmp_path):
    net = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=3)
    path = save(net, tmp_path / "net.weights.h5")
    with pytest.raises(ValueError, match="stride on the first 1x1 convolution; ours stride on the"):
        convert(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layout": "paper"}, "layout must be 'keras' for .*Received: layout='paper'"),
        ({"depth": 101}, "depth must be 50 for .*Received: depth=101"),
        ({"unit": "original"}, "unit must be 'full_preactivation' for .*Received: unit='original'"),
        ({"format": "timm"}, "must be of the format timm. Received: those of keras.applications"),
        ({"format": "tim"}, "format must be one of .*Did you mean 'timm'"),
        ({"deep": 50}, "argument must be one of depth, layout, .*Did you mean 'depth'"),
    ],
)
def test_arguments_that_contradict_the_file_are_refused(net, given, message, tmp_path):
    path = save(net, tmp_path / "net.weights.h5")
    with pytest.raises(ValueError, match=message):
        convert(path, **given)


def test_imagenet_needs_a_depth_that_keras_has():
    with pytest.raises(ValueError, match="depth must be one of 50, 101, 152 for 'imagenet'"):
        convert("imagenet", format="keras", depth=34)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [224, 203])
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_published_depths_agree_at_full_size(depth, pixels, tmp_path):
    net = build(depth, None if pixels == 224 else (pixels, pixels, 3))
    ours = convert(save(net, tmp_path / "net.keras"))
    x = images(2, pixels, pixels, 3)
    check_outputs(net, ours, x)
    check_stages(net, ours, depth, x[:1])


def test_imagenet_is_what_keras_downloads_with_the_names_of_the_classes(net, monkeypatch):
    # In place of the network.
    monkeypatch.setattr(keras.applications, "ResNet50V2", lambda weights, **_: net)
    names = [f"n{label:08}" for label in range(7)]

    def decode(scores, top):
        order = np.argsort(-scores[0])[:top]
        return [[(names[label], "crane" if label in (2, 5) else f"c{label}", 0) for label in order]]

    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", decode)
    ours = convert("imagenet", format="keras", depth=50)
    expected = ("c0", "c1", "crane_n00000002", "c3", "c4", "crane_n00000005", "c6")
    assert ours.preprocessing.class_names == expected
    x = images(1, 75, 75, 3)
    np.testing.assert_allclose(ours(x), net(x), atol=1e-4)


def test_without_a_network_imagenet_says_so(monkeypatch):
    def download(**_):
        raise Exception("URL fetch failure on https://keras: None -- Name not known")

    monkeypatch.setattr(keras.applications, "ResNet50V2", download)
    with pytest.raises(ConnectionError, match="ResNet50V2 cannot be downloaded: URL fetch failure"):
        convert("imagenet", depth=50)
