"""The builders: the networks they build, and the arguments they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact import PlainNet, ResNet, ResNetV2

SMALL = {"depth": 8, "input_shape": (8, 8, 3)}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape or (2, 8, 8, 3)).astype("float32")


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize(
    ("builder", "arguments", "trainable", "statistics"),
    [
        # Pre-activation, from the closed form that gives the counts of other libraries' nets.
        (ResNetV2, {"depth": 18}, 11_687_720, 7_808),
        (ResNetV2, {"depth": 50}, 25_549_352, 45_440),
        (ResNetV2, {"depth": 20}, 269_722, 1_376),
        (ResNetV2, {"depth": 110}, 1_727_962, 8_096),
        (ResNetV2, {"depth": 164}, 1_703_258, 24_224),
        pytest.param(
            *(ResNetV2, {"depth": 164, "classes": 100}, 1_703_258 + 23_130, 24_224),
            marks=pytest.mark.slow,
        ),
        # Torchvision's.
        (ResNet, {"depth": 18}, 11_689_512, 9_600),
        pytest.param(ResNet, {"depth": 50}, 25_557_032, 53_120, marks=pytest.mark.slow),
        # "Deep Residual Learning", table 6, has 0.27M. The stem's and the units' BN of original
        # nets has as many channels as the units' and the head's of pre-activation.
        (ResNet, {"depth": 20}, 269_722, 1_376),
        (PlainNet, {"depth": 20}, 269_722, 1_376),
    ],
)
def test_a_published_net_has_the_published_parameters(builder, arguments, trainable, statistics):
    model = builder(**arguments)
    assert count(model.trainable_variables) == trainable
    assert count(model.non_trainable_variables) == statistics


@pytest.mark.parametrize(
    ("depth", "input_shape", "classes"), [(20, (32, 32, 3), 10), (18, (224, 224, 3), 1000)]
)
def test_the_depth_decides_on_input_shape_and_classes(depth, input_shape, classes):
    model = ResNetV2(depth)
    assert model.input_shape == (None, *input_shape)
    assert model.output_shape == (None, classes)
    assert model.name == f"resnet{depth}"


@pytest.mark.parametrize("depth", [8, 11, 18])
def test_any_size_and_number_of_channels_will_do_even_an_unknown_size(depth):
    fixed = ResNetV2(depth, input_shape=(17, 23, 1), classes=3)
    unknown = ResNetV2(depth, input_shape=(None, None, 1), classes=3)
    unknown.set_weights(fixed.get_weights())
    x = images(2, 17, 23, 1)
    y = fixed(x)
    assert y.shape == (2, 3)
    np.testing.assert_allclose(unknown(x), y, rtol=1e-5, atol=1e-5)
    assert unknown(images(1, 9, 9, 1)).shape == (1, 3)


def test_the_imagenet_stem_quarters_the_image_and_the_units_take_another_eighth():
    model = ResNetV2(18, input_shape=(64, 96, 3), include_top=False)
    assert model.get_layer("stem_conv").output.shape == (None, 32, 48, 64)
    assert model.get_layer("stem_pool").output.shape == (None, 16, 24, 64)
    assert model.output_shape == (None, 2, 3, 512)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_without_the_top_pooled_features_are_the_pooled_feature_map(pooling):
    features = ResNetV2(**SMALL, include_top=False)
    pooled = ResNetV2(**SMALL, include_top=False, pooling=pooling)
    pooled.set_weights(features.get_weights())
    feature_map = features(images()).numpy()
    assert feature_map.shape == (2, 2, 2, 64)
    # The features are activated: the published extra BN and ReLU follow the last addition.
    assert feature_map.min() == 0 < feature_map.max()
    expected = {"avg": np.mean, "max": np.max}[pooling](feature_map, axis=(1, 2))
    np.testing.assert_allclose(pooled(images()), expected, rtol=1e-5, atol=1e-6)


def test_the_logits_are_a_dense_layer_on_the_average_of_the_feature_map():
    features = ResNetV2(**SMALL, include_top=False, pooling="avg")
    model = ResNetV2(**SMALL)
    features.set_weights(model.get_weights()[:-2])
    kernel, bias = model.get_weights()[-2:]
    expected = features(images()).numpy() @ kernel + bias
    np.testing.assert_allclose(model(images()), expected, rtol=1e-5, atol=1e-5)
    # As in Torch: uniform below 1 / sqrt(in), of standard deviation 1 / sqrt(3 * in).
    assert np.abs(kernel).max() <= 1 / np.sqrt(64)
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * 64), rtol=0.08)


def test_a_classifier_activation_turns_logits_into_probabilities():
    model = ResNetV2(**SMALL)
    classifier = ResNetV2(**SMALL, classifier_activation="softmax")
    classifier.set_weights(model.get_weights())
    probabilities = classifier(images()).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)
    exponentials = np.exp(model(images()).numpy())
    expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_an_input_tensor_may_come_from_layers_of_your_own():
    inputs = keras.Input((8, 8, 3))
    model = ResNetV2(8, input_tensor=keras.layers.Rescaling(2.0)(inputs))
    plain = ResNetV2(**SMALL)
    plain.set_weights(model.get_weights())
    assert model.inputs[0] is inputs
    np.testing.assert_allclose(model(images()), plain(2 * images()), rtol=1e-5, atol=1e-5)


def test_a_width_multiplier_changes_the_channels_of_stem_and_stages():
    model = ResNetV2(11, width_multiplier=0.5)
    names = ("stem_conv", "stage1_unit1", "stage2_unit1", "stage3_unit1")
    channels = [model.get_layer(name).output.shape[-1] for name in names]
    assert channels == [8, 4 * 8, 4 * 16, 4 * 32]


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_come_back_from_a_path(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    model = ResNetV2(**SMALL)
    save = model.save_weights if suffix == ".weights.h5" else model.save
    save(path)
    keras.utils.set_random_seed(1)
    other = ResNetV2(**SMALL)
    assert not np.array_equal(other(images()), model(images()))
    for weights in (path, str(path)):
        np.testing.assert_array_equal(ResNetV2(**SMALL, weights=weights)(images()), model(images()))


def test_under_mixed_precision_only_the_top_is_float32():
    names = [[v.path for v in ResNetV2(**SMALL).variables]]
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ResNetV2(**SMALL)
    names.append([v.path for v in model.variables])
    assert model(images()).dtype == "float32"
    assert model.get_layer("stage3_unit1").output.dtype == "bfloat16"
    assert model.get_layer("avg_pool").output.dtype == "float32"
    assert {v.dtype for v in model.variables} == {"float32"}
    assert names[0] == names[1]


def test_mixed_precision_computes_nearly_the_same():
    exact = ResNetV2(**SMALL)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = ResNetV2(**SMALL)
    mixed.set_weights(exact.get_weights())
    for training in (True, False):
        expected = exact(images(), training=training).numpy()
        # Four roundings of bfloat16, half a per cent each, relative to the largest logit.
        difference = np.abs(mixed(images(), training=training) - expected).max()
        assert 0 < difference < 0.02 * np.abs(expected).max()


def test_a_clone_computes_the_same():
    model = ResNetV2(**SMALL, shortcut="exclusive_gating", unit="original")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert [v.path for v in clone.variables] == [v.path for v in model.variables]
    np.testing.assert_array_equal(clone(images()), model(images()))


def test_the_compiled_network_computes_what_the_eager_one_does():
    model = ResNetV2(**SMALL)
    compiled = tf.function(model)(images())
    np.testing.assert_allclose(compiled, model(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "imagenet"}, r"no published weights .*Received: weights='imagenet'"),
        ({"include_top": False, "pooling": "mean"}, r"one of avg, max\. Received: pooling='mean'"),
        ({"classes": 0}, r"classes must be a whole number above 0\. Received: classes=0"),
        ({"classes": "ten"}, r"Received: classes='ten'"),
        ({"input_shape": (8, 8)}, r"Received: input_shape=\(8, 8\)"),
        ({"input_shape": (8, 0, 3)}, r"Received: input_shape=\(8, 0, 3\)"),
        ({"input_shape": (None, None, None)}, r"Received: input_shape=\(None, None, None\)"),
        ({"unit": "preactivation"}, "Did you mean 'full_preactivation'"),
        ({"shortcut": "identities"}, "Did you mean 'identity'"),
        ({"projection": "zero"}, r"projection='zero'\. Did you mean 'zero_pad'"),
        ({"depth": 21}, "Received: depth=21"),
        ({"depth": 18, "stem": "cifar"}, "Received: depth=18"),
        ({"depth": 38}, "depth=38 needs .*block='basic' or block='bottleneck'"),
    ],
)
def test_an_argument_outside_its_rule_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNetV2(**{**SMALL, **arguments})


@pytest.mark.parametrize("argument", [{"shortcut": "identity"}, {"projection": "zero_pad"}])
def test_a_plain_net_has_neither_shortcut_nor_projection(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=rf"PlainNet has neither .* Received: \['{name}'\]"):
        PlainNet(20, **argument)
