"""Damaged files and wrong labels of tensorflow-datasets' sets are named, with the record."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from sample_data import encode, image_features, prepare_tfds, small_examples, smooth_image

from keras_preact.data import datasets, tfds_source
from keras_preact.data.tfrecord import index_files

pytestmark = pytest.mark.usefixtures("no_network")

FEATURES = image_features((6, 8, 3))


@pytest.fixture(params=["in_memory", "as_files"])
def way(request, monkeypatch):
    """The two ways in which a set is read."""
    if request.param == "as_files":
        monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    return request.param


@pytest.fixture
def prepared(tmp_path):
    """A set of two files of six records for training, and one for testing."""
    splits = {"train": small_examples(12), "test": small_examples(5, 1)}
    prepare_tfds(tmp_path, "some", splits, FEATURES, shards=2)
    return tmp_path / "some" / "1.0.0"


def second_file(folder, split="train"):
    return folder / f"some-{split}.tfrecord-00001-of-00002"


def change_record(path, record, byte):
    """Flips a bit: of the length (0 to 7), its checksum (8 to 11), or the data (from 12 on)."""
    data = bytearray(path.read_bytes())
    data[index_files([str(path)]).offsets[record] + byte] ^= 4
    path.write_bytes(data)


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def refusal(folder, name="some"):
    with pytest.raises(ValueError) as error:
        datasets.load(name, data_dir=str(folder.parent.parent), image_size=None)
    return str(error.value)


@pytest.mark.parametrize("record", [0, 4])
@pytest.mark.parametrize(("byte", "of"), [(2, " of the length"), (9, " of the length"), (70, "")])
def test_a_flipped_bit_is_reported_with_the_file_and_the_record(prepared, way, record, byte, of):
    path = second_file(prepared)
    change_record(path, record, byte)
    assert f"{path}, record {record}: checksum{of} does not match" in refusal(prepared)


@pytest.mark.parametrize("missing", [1, 40, 100_000])
def test_a_file_cut_off_is_reported_with_the_record(prepared, way, missing):
    path = second_file(prepared)
    data = path.read_bytes()
    # At least half of the length of the last record remains.
    last = index_files([str(path)]).offsets[-1]
    path.write_bytes(data[: max(len(data) - missing, last + 6)])
    assert f"{path}, record 5: the file ends before the record does" in refusal(prepared)


def test_a_file_that_holds_no_records_is_named(prepared, way):
    second_file(prepared).write_bytes(b"<html>Not found</html>" * 20)
    message = refusal(prepared)
    assert f"{second_file(prepared)}, record 0: checksum of the length" in message
    assert "holds no TFRecords" in message


def test_a_missing_file_is_named(prepared, way):
    second_file(prepared).unlink()
    assert f"{second_file(prepared)}: no such file" in refusal(prepared)


def test_missing_records_are_noticed(prepared, way):
    path = second_file(prepared)
    path.write_bytes(path.read_bytes()[: index_files([str(path)]).offsets[-1]])
    assert "some must have 12 examples in train" in refusal(prepared)
    assert "Found: 11" in refusal(prepared)


def test_damage_of_the_evaluation_images_is_found_before_training(prepared, way):
    change_record(second_file(prepared, "test"), 1, 70)
    message = refusal(prepared)
    assert f"{second_file(prepared, 'test')}, record 1: checksum does not match" in message


def test_an_image_that_cannot_be_decoded_is_named_though_its_checksum_matches(prepared, way):
    path = second_file(prepared)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    records[3] = records[3].replace(b"PNG", b"PMG")
    write_records(path, records)
    assert f"{path}, record 3: Images must be JPEG, PNG, GIF or BMP files" in refusal(prepared)
    records[3] = records[3].replace(b"PMG", b"PNG").replace(b"IDAT", b"IDAX")
    write_records(path, records)
    assert f"{path}, record 3: not an image, or damaged (" in refusal(prepared)


def test_a_record_of_something_else_is_named_though_its_checksum_matches(prepared, way):
    path = second_file(prepared)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    records[5] = b"Hm."
    write_records(path, records)
    assert f"{path}, record 5: not an example of this data set (" in refusal(prepared)


def test_labels_of_no_class_are_refused(tmp_path, way):
    # The set has three classes; its description is changed to two.
    examples = [example | {"label": n % 3} for n, example in enumerate(small_examples(6))]
    splits = {"train": examples, "test": small_examples(4)}
    prepare_tfds(tmp_path, "some", splits, image_features((6, 8, 3), ("ant", "bee", "wasp")))
    folder = tmp_path / "some" / "1.0.0"
    (folder / "label.labels.txt").write_text("ant\nbee\n")
    description = (folder / "features.json").read_text()
    changed = re.sub(r'("num_?[cC]lasses": )"3"', r'\1"2"', description)
    assert changed != description
    (folder / "features.json").write_text(changed)
    [path] = folder.glob("*-train.tfrecord*")
    features = {"label": tf.io.FixedLenFeature([], tf.int64)}
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    labels = [int(tf.io.parse_single_example(r, features)["label"]) for r in records]
    message = refusal(folder)
    assert f"{path}, record {labels.index(2)}: label must be 0 to 1 (TFDS" in message
    assert "for none). Received: 2" in message


def test_a_split_without_labels_is_refused(tmp_path, way):
    unlabelled = [example | {"label": -1} for example in small_examples(4)]
    prepare_tfds(tmp_path, "some", {"train": small_examples(6), "test": unlabelled}, FEATURES)
    message = refusal(tmp_path / "some" / "1.0.0")
    assert "some-test.tfrecord-00000-of-00001, record 0: " in message
    assert "label must be 0 to 1 (TFDS has -1 for none). Received: -1" in message


def test_a_label_of_no_class_that_was_not_looked_at_before_ends_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source, "MEMORY_BYTES", 0)
    monkeypatch.setattr(tfds_source, "CHECKED_IMAGES", 1)
    monkeypatch.setattr("keras_preact.data.sources.Encoded.STATISTICS_IMAGES", 1)
    examples = [example | {"label": 0} for example in small_examples(20)]
    examples[7]["label"] = -1
    prepare_tfds(tmp_path, "some", {"train": examples, "test": small_examples(3)}, FEATURES)
    dataset = datasets.load("some", data_dir=str(tmp_path), image_size=8)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(dataset.train(4).take(5))
    [problem] = dataset.unreadable("train", range(20))
    assert problem.endswith("label must be 0 to 1 (TFDS has -1 for none). Received: -1")


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("sides", [(8, 8), (None, None)])
def test_images_of_other_than_one_or_three_channels_are_refused(tmp_path, sides, channels):
    examples = [{"image": np.zeros((8, 8, channels), np.uint8), "label": n % 2} for n in range(3)]
    features = image_features((*sides, channels))
    prepare_tfds(tmp_path, "some", {"train": examples, "test": examples}, features)
    message = refusal(tmp_path / "some" / "1.0.0")
    assert "dataset must have images of 1 or 3 channels. Received: some with images of" in message
    assert f"shape {(*sides, channels)}" in message


def test_photos_of_one_channel_are_brought_to_three(tmp_path):
    examples = [
        {"image": encode(smooth_image(30 + n, 40), "PNG", "L"), "label": n % 2} for n in range(4)
    ]
    features = image_features((None, None, 1))
    prepare_tfds(tmp_path, "some", {"train": examples, "test": examples}, features)
    dataset = datasets.load("some", data_dir=str(tmp_path), image_size=16)
    assert dataset.info.image_shape == (16, 16, 3)
    assert next(iter(dataset.train(4)))[0].shape == (4, 16, 16, 3)


@pytest.mark.parametrize(
    ("file_format", "words"),
    [
        # Reading parquet works, but there are no such files.
        ("parquet", r"^\S+/some/1.0.0 is damaged or incomplete: .*some-train.parquet"),
        ("array_record", r"^some must be prepared as files .*tfrecord.* Received: array_record: "),
        ("riegeli", r"^some must be prepared as files .*tfrecord.* Received: riegeli: "),
    ],
)
def test_other_file_formats_that_cannot_be_read_are_refused(prepared, file_format, words):
    description = prepared / "dataset_info.json"
    changed = json.loads(description.read_text()) | {"fileFormat": file_format}
    description.write_text(json.dumps(changed))
    message = refusal(prepared)
    assert re.search(words, message)
    assert "\n" not in message


@pytest.mark.parametrize("path", ["", "some"])
def test_a_file_in_the_place_of_the_sets_folder_is_refused_without_a_download(
    tmp_path, capsys, path
):
    (tmp_path / "data").mkdir() if path else None
    (tmp_path / "data" / path).touch()
    with pytest.raises(ValueError, match=rf"^data_dir must be .*{path}: not a folder$"):
        datasets.load("some", data_dir=str(tmp_path / "data"))
    assert "downloading" not in capsys.readouterr().out
