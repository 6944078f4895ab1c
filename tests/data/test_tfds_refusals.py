"""Data sets that are refused, or cannot be read or downloaded."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sample_data import image_features, prepare_tfds, small_examples

from keras_preact.data import datasets, tfds_source

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifra10", "cifar10"), ("imagnet2012", "imagenet2012"), ("digit", "digits")],
)
def test_an_unknown_name_is_refused_with_the_nearest_known(tmp_path, name, nearest):
    with pytest.raises(ValueError, match=f"dataset='{name}'. Did you mean '{nearest}'"):
        datasets.load(name, data_dir=str(tmp_path))


def test_a_missing_folder_is_refused_with_what_was_expected_there(tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(ValueError) as error:
        datasets.load("cifar10", data_dir=str(absent))
    assert str(absent / "cifar10" / "VERSION" / "dataset_info.json") in str(error.value)
    assert f"There is no folder {absent}" in str(error.value)
    assert not absent.exists()


@pytest.mark.parametrize("kind", [OSError, AssertionError, tfds.download.DownloadError])
def test_a_set_that_cannot_be_downloaded_is_refused_with_the_reason(tmp_path, monkeypatch, kind):
    def download(*arguments, **options):
        raise kind("unreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(ValueError, match=r"could not be downloaded: .*unreachable") as error:
        datasets.load("mnist", data_dir=str(tmp_path))
    assert str(tmp_path / "mnist" / "VERSION" / "dataset_info.json") in str(error.value)


def test_a_set_that_is_not_prepared_is_prepared_in_the_folder(tmp_path, monkeypatch, capsys):
    examples = {"train": small_examples(3), "test": small_examples(2)}
    features = image_features((6, 8, 3))

    def builder(name, *, data_dir, **options):
        return prepare_tfds(data_dir, name, examples, features)

    monkeypatch.setattr(tfds, "builder", builder)
    # The builder of the test is prepared already; the code does not know.
    monkeypatch.setattr(tfds.core.DatasetBuilder, "is_prepared", lambda self: False)
    dataset = datasets.load("mnist", data_dir=str(tmp_path))
    assert (dataset.info.train_count, dataset.info.eval_count) == (3, 2)
    assert f"mnist is not prepared in {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / "mnist" / "1.0.0" / "dataset_info.json").exists()


@pytest.mark.parametrize(
    "keys",
    [
        None,
        ("label", "image"),
        ("image", "image"),
        ("image", "size"),
        # TFDS also allows weights, and several inputs.
        ("image", "label", "size"),
        (("image", "size"), "label"),
    ],
)
def test_a_set_that_is_not_image_classification_is_refused(tmp_path, keys):
    features = image_features((6, 8, 3)) | {"size": tfds.features.Scalar(np.int64)}
    examples = [example | {"size": 1} for example in small_examples(3)]
    prepare_tfds(tmp_path, "some", {"train": examples}, features, keys=keys)
    with pytest.raises(ValueError, match="must be one of image classification"):
        datasets.load("some", data_dir=str(tmp_path))


def test_a_set_without_a_train_split_is_refused(tmp_path):
    prepare_tfds(tmp_path, "some", {"test": small_examples(3)}, image_features((6, 8, 3)))
    with pytest.raises(ValueError, match=r"some must have a split train\. Received: test"):
        datasets.load("some", data_dir=str(tmp_path))


def test_images_that_are_not_of_bytes_are_refused(tmp_path):
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        }
    )
    example = {"image": np.full((4, 4, 1), 60_000, np.uint16), "label": 0}
    prepare_tfds(tmp_path, "deep", {"train": [example, example]}, features)
    with pytest.raises(ValueError, match=r"images of uint8\. Received: deep with images of uint16"):
        datasets.load("deep", data_dir=str(tmp_path))


def test_a_set_of_one_image_cannot_be_split(tmp_path):
    prepare_tfds(tmp_path, "one", {"train": small_examples(1)}, image_features((6, 8, 3)))
    with pytest.raises(ValueError, match="there are none for training"):
        datasets.load("one", data_dir=str(tmp_path))


@pytest.fixture
def read_as_files(tmp_path, monkeypatch):
    """A set whose images are too many for memory, and its folder."""
    monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    splits = {"train": small_examples(5), "test": small_examples(3)}
    prepare_tfds(tmp_path, "large", splits, image_features((6, 8, 3)))
    return tmp_path / "large" / "1.0.0"


def test_files_that_cannot_be_read_at_random_are_refused(read_as_files):
    description = read_as_files / "dataset_info.json"
    changed = json.loads(description.read_text()) | {"fileFormat": "array_record"}
    description.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"prepared as tfrecord.* Received: array_record"):
        datasets.load("large", data_dir=str(read_as_files.parent.parent))


def test_missing_records_are_noticed(read_as_files):
    # A whole file in the place of another: no record is cut, but two are missing.
    [train], [test] = (
        list(read_as_files.glob(f"*-{split}.tfrecord*")) for split in ("train", "test")
    )
    shutil.copyfile(test, train)
    with pytest.raises(ValueError, match=r"must have 5 examples in train.* Found: 3"):
        datasets.load("large", data_dir=str(read_as_files.parent.parent))


def test_a_class_whose_name_is_no_line_of_text_is_refused(tmp_path):
    prepare_tfds(tmp_path, "some", {"train": small_examples(6)}, image_features((6, 8, 3)))
    (tmp_path / "some" / "1.0.0" / "label.labels.txt").write_text("ant\nbe\x1b[2Je\n")
    with pytest.raises(ValueError, match="The name of a class must be a line of UTF-8") as error:
        datasets.load("some", data_dir=str(tmp_path))
    place = f"some, prepared in {tmp_path}/some/1.0.0"
    assert str(error.value).endswith(rf"Received, in {place}: 'be\x1b[2Je'")


def test_an_image_that_would_take_all_memory_is_refused_with_its_record(tmp_path):
    images = [
        np.zeros((1, 20_000, 3), np.uint8) if n == 3 else np.ones((9, 9, 3)) for n in range(6)
    ]
    examples = [{"image": image.astype(np.uint8), "label": n % 2} for n, image in enumerate(images)]
    splits = {"train": small_examples(2), "test": examples}
    prepare_tfds(tmp_path, "some", splits, image_features((None, None, 3)))
    with pytest.raises(ValueError, match="Every image must be readable") as error:
        datasets.load("some", data_dir=str(tmp_path), image_size=224)
    rule = "An image must have 1 to 50,000,000 pixels, and no more once it covers 256 x 256."
    # Their order is that of the set's own shuffling.
    assert re.search(rf"some-test\.tfrecord-\S+, record \d: {re.escape(rule)}", str(error.value))


@pytest.mark.parametrize("name", ["*-train.tfrecord*", "dataset_info.json", "features.json"])
def test_a_damaged_file_of_a_set_in_memory_is_reported_with_its_folder(tmp_path, name):
    splits = {"train": small_examples(5), "test": small_examples(3)}
    prepare_tfds(tmp_path, "damaged", splits, image_features((6, 8, 3)))
    [path] = (tmp_path / "damaged" / "1.0.0").glob(name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=str(path.parent)):
        datasets.load("damaged", data_dir=str(tmp_path))


def test_what_tfds_left_of_a_broken_download_is_no_version(tmp_path):
    prepare_tfds(tmp_path, "some", {"train": small_examples(9)}, image_features((6, 8, 3)))
    folder = tmp_path / "some"
    shutil.copytree(folder / "1.0.0", folder / "incomplete.ABC123_2.0.0")
    assert datasets.load("some", data_dir=str(tmp_path)).info.train_count == 8


def test_a_set_of_another_kind_is_refused_before_it_is_downloaded(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"must be one of image classification.*imdb_reviews"):
        datasets.load("imdb_reviews", data_dir=str(tmp_path))
    assert "downloading" not in capsys.readouterr().out


def test_the_folder_of_another_set_is_refused(tmp_path):
    prepare_tfds(tmp_path, "some", {"train": small_examples(9)}, image_features((6, 8, 3)))
    with pytest.raises(ValueError, match=r"must hold cifar10.* holds some"):
        datasets.load("cifar10", data_dir=str(tmp_path / "some" / "1.0.0"))
