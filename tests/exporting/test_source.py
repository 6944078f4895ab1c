"""Reading runs and .keras files to export, and refusing others."""

import keras
import numpy as np
import pytest

from keras_preact import ResNetV2
from keras_preact.exporting import ExportConfig, source

LAYERS = keras.layers


def images(count=3, side=8):
    return np.random.default_rng(0).normal(0, 1, (count, side, side, 1)).astype(np.float32)


def saved(tmp_path, model, dataset="digits", **options):
    """The configuration of an export of a model."""
    path = tmp_path / "net.keras"
    model.save(path)
    return ExportConfig(model=str(path), dataset=dataset, **options)


def with_statistics(model):
    """The network, with BNs that change their inputs."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance", "moving_mean"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.mark.parametrize(
    ("precision", "activation"),
    [("float32", None), ("mixed_bfloat16", "softmax"), ("mixed_float16", None)],
)
def test_a_file_of_any_precision_is_read_as_the_same_net_in_float32(
    tmp_path, precision, activation
):
    options = {"input_shape": (8, 8, 1), "classes": 10, "classifier_activation": activation}
    keras.utils.set_random_seed(3)
    in_float32 = with_statistics(ResNetV2(8, **options))
    keras.config.set_dtype_policy(precision)
    model = ResNetV2(8, **options)
    model.set_weights(in_float32.get_weights())
    config = saved(tmp_path, model)
    read = source.read(config)
    assert {layer.compute_dtype for layer in read.model._flatten_layers()} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    expected = in_float32.predict(images(), verbose=0)
    np.testing.assert_allclose(read.model.predict(images(), verbose=0), expected, atol=1e-6)
    assert (read.data.info.name, read.description) == ("digits", config.model)


def test_a_net_for_images_of_any_size_takes_those_of_the_data(tmp_path):
    model = with_statistics(ResNetV2(8, input_shape=(None, None, 1), classes=10))
    read = source.read(saved(tmp_path, model))
    expected = model.predict(images(), verbose=0)
    np.testing.assert_allclose(read.model.predict(images(), verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "classes", "words"),
    [
        ((8, 8, 1), 7, r"images \(8, 8, 1\) and knows 7 classes. Received: digits, .* 10 classes"),
        ((9, 9, 1), 10, r"takes images \(9, 9, 1\).* with images \(8, 8, 1\)"),
        ((8, 8, 3), 10, r"takes images \(8, 8, 3\)"),
        ((None, None, 3), 10, r"takes images \(None, None, 3\)"),
    ],
)
def test_data_that_do_not_fit_the_net_are_refused(tmp_path, shape, classes, words):
    config = saved(tmp_path, ResNetV2(8, input_shape=shape, classes=classes))
    with pytest.raises(ValueError, match=words):
        source.read(config)


def chain(*layers, shape=(8, 8, 1)):
    """A model of layers one after the other."""
    inputs = outputs = LAYERS.Input(shape)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def two_inputs():
    inputs = [LAYERS.Input((8, 8, 1)), LAYERS.Input((8, 8, 1))]
    return keras.Model(inputs, logits()(LAYERS.Flatten()(LAYERS.Add()(inputs))))


def two_outputs():
    inputs = LAYERS.Input((8, 8, 1))
    outputs = logits()(LAYERS.Flatten()(inputs))
    return keras.Model(inputs, [outputs, outputs])


def logits(**options):
    return LAYERS.Dense(10, name="logits", **options)


def softmax(name="predictions"):
    return LAYERS.Activation("softmax", name=name)


OTHERS = {
    "none": lambda: keras.Sequential([]),
    "no_head": lambda: ResNetV2(8, input_shape=(8, 8, 1), include_top=False),
    "sigmoid": lambda: ResNetV2(
        8, input_shape=(8, 8, 1), classes=10, classifier_activation="sigmoid"
    ),
    "another_name": lambda: chain(LAYERS.Flatten(), LAYERS.Dense(10)),
    "softmax_of_another_name": lambda: chain(LAYERS.Flatten(), logits(), softmax("classes")),
    "softmax_as_a_layer": lambda: chain(
        LAYERS.Flatten(), logits(), LAYERS.Softmax(name="predictions")
    ),
    "softmax_within": lambda: chain(LAYERS.Flatten(), logits(activation="softmax")),
    "something_between": lambda: chain(LAYERS.Flatten(), logits(), LAYERS.ReLU(), softmax()),
    "no_images": lambda: chain(logits(), shape=(64,)),
    "a_map": lambda: chain(logits(), shape=(8, 8, 1)),
    "not_built": lambda: keras.Sequential([LAYERS.Flatten(), logits()]),
    "two_inputs": two_inputs,
    "two_outputs": two_outputs,
}


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_a_model_that_is_not_made_as_ours_is_refused(tmp_path, make):
    config = saved(tmp_path, make())
    with pytest.raises(ValueError, match=r"end in a linear layer named logits.*net\.keras, which"):
        source.read(config)


def test_a_file_that_is_none_of_keras_or_not_there_is_refused(tmp_path):
    path = tmp_path / "net.keras"
    config = ExportConfig(model=str(path), dataset="digits")
    with pytest.raises(ValueError, match=r"net\.keras, which is not there"):
        source.check(config)
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"model cannot be read. Received: .*net\.keras: "):
        source.read(config)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="not there"):
        source.check(config)


def test_a_run_is_read_with_what_it_was_trained_with(digits_run):
    config = ExportConfig(run_dir=str(digits_run.folder))
    source.check(config)
    read = source.read(config)
    assert read.description == f"step 45 of {digits_run.folder}"
    assert read.model.name == "resnet8"


def test_data_of_a_run_that_have_moved_are_found_and_others_refused(photographs_run, tmp_path):
    images = photographs_run.folder.parent / "images"
    (tmp_path / "moved").symlink_to(images)
    config = ExportConfig(run_dir=str(photographs_run.folder), data_dir=str(tmp_path / "moved"))
    read = source.read(config)
    assert read.data.eval_name(0) == str(tmp_path / "moved" / "val" / "blue" / "0.jpg")
    for split in ("train", "val"):
        (tmp_path / "other" / split).mkdir(parents=True)
        for old, new in (("blue", "ant"), ("green", "bee"), ("red", "cat")):
            (tmp_path / "other" / split / new).symlink_to(images / split / old)
    config = ExportConfig(run_dir=str(photographs_run.folder), data_dir=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="data must be those of the run"):
        source.read(config)


def test_images_are_normalized_as_in_training_whatever_they_are_now(photographs_run, tmp_path):
    images = photographs_run.folder.parent / "images"
    # Fewer training images, so other statistics; the same evaluation images.
    for name in ("blue", "green", "red"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.jpg").symlink_to(images / "train" / name / "0.jpg")
    (tmp_path / "val").symlink_to(images / "val")
    read_here = source.read(ExportConfig(run_dir=str(photographs_run.folder)))
    read_there = source.read(
        ExportConfig(run_dir=str(photographs_run.folder), data_dir=str(tmp_path))
    )
    assert read_there.data.info.train_count == 3
    assert read_there.data.info.mean == read_here.data.info.mean
    assert read_there.data.info.std == read_here.data.info.std


def test_without_a_run_or_a_checkpoint_there_is_nothing_to_export(digits_run, tmp_path):
    with pytest.raises(ValueError, match=r"no .*config\.json"):
        source.check(ExportConfig(run_dir=str(tmp_path / "none")))
    (tmp_path / "config.json").write_bytes((digits_run.folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="There is no best checkpoint"):
        source.check(ExportConfig(run_dir=str(tmp_path), checkpoint="best"))


def test_held_out_images_are_none_that_calibrate_where_there_are_enough(tmp_path):
    model = ResNetV2(8, input_shape=(8, 8, 1), classes=10)
    read = source.read(saved(tmp_path, model))
    count = read.data.info.train_count
    calibrate, held_out = read.calibration_images(300), read.held_out_images(300, 200)
    assert (len(calibrate), len(held_out)) == (300, 200)
    # Not all digits of 8 x 8 pixels differ from each other.
    shared = {image.tobytes() for image in calibrate} & {image.tobytes() for image in held_out}
    assert len(shared) <= 2
    assert len(read.held_out_images(count, 200)) == 200
    assert len(read.held_out_images(1, 10 * count)) == count
