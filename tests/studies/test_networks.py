"""Networks and images to analyse, against what the run wrote and what lies in memory."""

import numpy as np
import pytest

from keras_preact.data import datasets
from keras_preact.studies.networks import Network, describe, kinds, new, of_run
from keras_preact.training import TrainConfig, run
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder

DIGITS = TrainConfig(dataset="digits", depth=8)
# 1,437 training images: evaluated after 12 steps, and after the last one.
ENDS_BADLY = DIGITS.updated(
    global_batch_size=128,
    train_steps=15,
    warmup_steps=12,
    warmup_learning_rate=0.1,
    learning_rate=3.0,
    augmentation="pad_crop",
    ema_decay=0.5,
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run whose best checkpoint is not its newest, and whose weights are averaged."""
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    run(ENDS_BADLY.updated(run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def cross_entropy(network):
    """The mean loss over all evaluation images, in NumPy from the logits on."""
    source, info = network.data.eval_source, network.data.info
    images = (source.images - np.array(info.mean)) / np.array(info.std)
    logits = np.float64(network.model(images.astype(np.float32), training=False))
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(logits)), source.labels]
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)


@pytest.mark.parametrize(("which", "step"), [("newest", 15), ("best", 12)])
def test_a_network_of_a_run_has_the_loss_that_the_run_had_at_its_checkpoint(run_dir, which, step):
    network = of_run(run_dir, which)
    losses = {row.step: row.eval_loss for row in metrics_file.read(RunFolder(run_dir).metrics)}
    assert losses[15] > 1.1 * losses[12]
    assert cross_entropy(network) == pytest.approx(losses[step], rel=1e-4)
    assert network.label == f"ResNet-8, full_preactivation, identity, step {step}"
    assert str(network.folder) == run_dir
    assert network.config.learning_rate == 3


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run_dir must be the folder of a run"):
        of_run(str(tmp_path))


def weights(network):
    return np.concatenate([v.numpy().ravel() for v in network.model.trainable_variables])


def test_a_seed_decides_on_new_weights(digits):
    seeds = (3, 4, 3)
    first, other, again = (weights(new(DIGITS.updated(seed=seed), digits)) for seed in seeds)
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.9  # gamma and beta begin alike


def test_a_new_network_is_that_of_its_configuration(digits):
    config = DIGITS.updated(
        shortcut="constant_scaling", shortcut_arguments="shortcut_scale=0.25", unit="original"
    )
    network = new(config, digits)
    unit = network.model.get_layer("stage2_unit1")
    assert unit.shortcut.get_config()["shortcut_scale"] == 0.25
    assert network.model.input_shape == (None, 8, 8, 1)
    assert network.label == "ResNet-8, original, constant_scaling (shortcut_scale=0.25)"
    assert network.folder is None


def source_images(network, images, labels):
    """The index of each image among the training images, by its bytes and its label."""
    source, info = network.data.train_source, network.data.info
    pixels = images.astype(np.float64) * np.array(info.std) + np.array(info.mean)
    restored = np.round(pixels).astype(np.uint8)
    np.testing.assert_allclose(pixels, restored, atol=1e-3)
    places = {
        (image.tobytes(), int(label)): place
        for place, (image, label) in enumerate(zip(source.images, source.labels, strict=True))
    }
    return [places[i.tobytes(), int(n)] for i, n in zip(restored, labels, strict=True)]


def test_training_images_are_normalized_not_augmented_and_chosen_by_seed(run_dir):
    network = of_run(run_dir)
    drawn = [network.training_images(64, seed) for seed in (5, 6, 5)]
    for images, labels in drawn:
        assert images.shape == (64, 8, 8, 1) and images.dtype == np.float32
        assert labels.shape == (64,) and labels.dtype == np.int32
    first, other, again = (source_images(network, *pair) for pair in drawn)
    assert len(set(first)) == 64
    assert first == again and first != sorted(first)
    assert len(set(first) & set(other)) < 20


def test_no_image_is_there_twice_where_more_are_wanted_than_there_are(digits):
    network = new(DIGITS, digits)
    images, labels = network.training_images(10_000)
    assert sorted(source_images(network, images, labels)) == list(range(1437))


@pytest.mark.parametrize(("size", "count"), [(64, 64), (65, 16)])
def test_by_default_there_are_fewer_images_where_they_are_large(size, count):
    data = datasets.load("synthetic", image_size=size)
    images, labels = Network("", DIGITS, None, data).training_images()
    assert images.shape == (count, size, size, 3) and labels.shape == (count,)


def test_images_of_all_classes_have_a_mean_of_0_and_a_deviation_of_1(digits):
    images, _ = new(DIGITS, digits).training_images(1437)
    assert abs(images.mean()) < 1e-4 and abs(images.std() - 1) < 1e-4


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "ResNet-8, full_preactivation, identity"),
        ({"depth": 1001, "unit": "original"}, "ResNet-1001, original, identity"),
        ({"shortcut": "none"}, "PlainNet-8, full_preactivation"),
        (
            {
                "shortcut": "constant_scaling",
                "shortcut_arguments": "shortcut_scale=0.5,residual_scale=1",
            },
            "ResNet-8, full_preactivation, constant_scaling (shortcut_scale=0.5, residual_scale=1)",
        ),
        (
            {"block": "basic", "width_multiplier": 0.5},
            "ResNet-8, full_preactivation, identity, basic units, width 0.5",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_is_called_by_family_depth_and_what_was_chosen(fields, text):
    assert describe(DIGITS.updated(**fields)) == text


@pytest.mark.parametrize(
    ("networks", "names"),
    [
        ([{}, {"unit": "original"}], ["full_preactivation", "original"]),
        ([{}, {"depth": 14}], ["ResNet, full_preactivation, identity"] * 2),
        ([{}, {"shortcut": "none"}], ["ResNet, identity", "PlainNet"]),
        (
            [{}, {"width_multiplier": 2.0}, {"unit": "original"}],
            ["full_preactivation", "full_preactivation, width 2", "original"],
        ),
        ([{"shortcut": "none"}], ["PlainNet, full_preactivation"]),
    ],
)
def test_beside_each_other_networks_are_called_by_what_they_do_not_have_in_common(networks, names):
    assert kinds([DIGITS.updated(**fields) for fields in networks]) == names
