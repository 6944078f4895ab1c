"""Random access to TFRecord files, against TensorFlow's own reader."""

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import tfrecord


def write_shards(folder, counts, seed=0):
    """One TFRecord file for each count of records; records have 0 to 300 random bytes."""
    generator = np.random.default_rng(seed)
    paths = [str(folder / f"some-{number:05d}.tfrecord") for number in range(len(counts))]
    for path, count in zip(paths, counts, strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(count):
                writer.write(generator.bytes(generator.integers(0, 300)))
    return paths


def records_of(paths):
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


@pytest.fixture
def shards(tmp_path):
    # One of them without a record: TFDS writes such a file for a tiny split.
    return write_shards(tmp_path, (5, 1, 0, 17, 3))


def test_every_record_of_every_shard_is_what_tensorflow_reads_in_sequence(shards):
    index = tfrecord.index_files(shards)
    expected = records_of(shards)
    assert len(index) == len(expected) == 26
    assert [index.read(tf.constant(number, tf.int64)).numpy() for number in range(26)] == expected


def test_records_are_read_in_any_order_and_many_times_within_tf_data(shards):
    index = tfrecord.index_files(shards)
    expected = records_of(shards)
    wanted = np.random.default_rng(1).integers(0, 26, 200)
    records = tf.data.Dataset.from_tensor_slices(wanted).map(
        index.read, num_parallel_calls=4, deterministic=True
    )
    assert records.element_spec == tf.TensorSpec([], tf.string)
    assert list(records.as_numpy_iterator()) == [expected[number] for number in wanted]


def test_an_empty_record_is_an_empty_string(tmp_path):
    path = str(tmp_path / "empty.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in (b"", b"one", b""):
            writer.write(record)
    index = tfrecord.index_files([path])
    assert [index.read(tf.constant(n, tf.int64)).numpy() for n in range(3)] == [b"", b"one", b""]


def test_files_without_any_record_have_no_records(tmp_path):
    assert len(tfrecord.index_files(write_shards(tmp_path, (0, 0)))) == 0


def test_the_index_is_found_without_reading_the_data(tmp_path):
    # A record of a gigabyte, but for its header a hole in the file.
    length, path = 2**30, tmp_path / "huge.tfrecord"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + bytes(4))
        file.truncate(12 + length + 4)
    index = tfrecord.index_files([str(path)])
    assert (index.offsets.tolist(), index.lengths.tolist()) == ([12], [length])


# The cut lies in the last checksum (4 bytes), in the data (100), in the header's checksum
# (4) or in the length (8). TensorFlow takes the last two for the end of the file.
@pytest.mark.parametrize("missing", [1, 4, 5, 104, 104 + 1, 104 + 4, 104 + 6, 104 + 11])
def test_the_error_for_a_truncated_file_names_the_file(tmp_path, missing):
    paths = [str(tmp_path / name) for name in ("whole.tfrecord", "cut.tfrecord")]
    for path in paths:
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(3):
                writer.write(bytes(100))
    data = (tmp_path / "cut.tfrecord").read_bytes()
    (tmp_path / "cut.tfrecord").write_bytes(data[:-missing])
    with pytest.raises(ValueError, match=r"cut\.tfrecord is no complete TFRecord file") as error:
        tfrecord.index_files(paths)
    assert "whole.tfrecord" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.tfrecord"):
        tfrecord.index_files([str(tmp_path / "absent.tfrecord")])
