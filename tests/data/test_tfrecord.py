"""Random access to TFRecord files, against TensorFlow's own reader."""

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import tfrecord

COUNTS = (5, 1, 0, 17, 3)


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
    return write_shards(tmp_path, COUNTS)


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
        file.write(length.to_bytes(8, "little") + masked_crc32c(length.to_bytes(8, "little")))
        file.truncate(12 + length + 4)
    index = tfrecord.index_files([str(path)])
    assert (index.offsets.tolist(), index.lengths.tolist()) == ([0], [length])


def masked_crc32c(data):
    """The checksum of TFRecord files, bit by bit: Castagnoli's polynomial, rotated and shifted."""
    remainder = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            low = (remainder ^ byte >> bit) & 1
            remainder = remainder >> 1 ^ low * 0x82F63B78
    checksum = remainder ^ 0xFFFFFFFF
    rotated = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")


@pytest.fixture
def triple(tmp_path):
    """Two files of three records of 100 bytes; a record takes 116 bytes of a file."""
    paths = [tmp_path / name for name in ("whole.tfrecord", "bad.tfrecord")]
    for path in paths:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(3):
                writer.write(bytes(100))
    return paths


def flip_bit(path, byte, bit=3):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


# The cut lies in the last checksum (4 bytes), in the data (100), in the header's checksum
# (4) or in the length (8). TensorFlow takes the last two for the end of the file.
@pytest.mark.parametrize("missing", [1, 4, 5, 104, 104 + 1, 104 + 4, 104 + 6, 104 + 11])
def test_the_error_for_a_truncated_file_names_the_file_and_the_record(triple, missing):
    whole, bad = triple
    bad.write_bytes(bad.read_bytes()[:-missing])
    with pytest.raises(ValueError) as error:
        tfrecord.index_files([str(path) for path in triple])
    assert f"{bad}, record 2: the file ends before the record does" in str(error.value)
    assert str(whole) not in str(error.value)


@pytest.mark.parametrize("record", [0, 1, 2])
@pytest.mark.parametrize("byte", range(12))
def test_every_flipped_bit_of_a_header_is_found_before_any_data_is_read(triple, record, byte):
    flip_bit(triple[1], 116 * record + byte, bit=byte % 8)
    with pytest.raises(ValueError) as error:
        tfrecord.index_files([str(path) for path in triple])
    assert f"{triple[1]}, record {record}: checksum of the length does not" in str(error.value)


@pytest.mark.parametrize("content", [b"GIF89a" + bytes(200), bytes(200), b"\n" * 12])
def test_a_file_without_tfrecords_is_named(tmp_path, content):
    path = tmp_path / "other.tfrecord"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.tfrecord, record 0: .* holds no TFRecords$"):
        tfrecord.index_files([str(path)])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.tfrecord: no such file"):
        tfrecord.index_files([str(tmp_path / "absent.tfrecord")])


def test_records_are_named_by_their_file_and_their_number_in_it(shards):
    index = tfrecord.index_files(shards)
    names = [f"{shards[n]}, record {record}" for n, c in enumerate(COUNTS) for record in range(c)]
    assert [index.where(number) for number in range(26)] == names


# A byte of the data, of the data's checksum; and of the header, after it was indexed.
@pytest.mark.parametrize("byte", [116 + 12, 116 + 111, 116 + 115, 116 + 3, 116 + 9])
def test_a_flipped_bit_is_an_error_when_its_record_is_read_and_only_then(triple, byte):
    index = tfrecord.index_files([str(triple[1])])
    flip_bit(triple[1], byte)
    records = tf.data.Dataset.from_tensor_slices([0, 2, 1]).map(index.read)
    read = []
    with pytest.raises(tf.errors.DataLossError):
        read.extend(records)
    assert read == [bytes(100)] * 2
    assert [index.problem(n) for n in range(3)] == [None, "checksum does not match", None]


@pytest.mark.parametrize("kept", [0, 50, 116, 116 + 6, 116 + 50, 116 + 115])
def test_a_file_cut_off_after_it_was_indexed_is_an_error(triple, kept):
    index = tfrecord.index_files([str(triple[1])])
    triple[1].write_bytes(triple[1].read_bytes()[:kept])
    with pytest.raises(tf.errors.OpError):
        list(tf.data.Dataset.range(3).map(index.read))
    ends = "the file ends before the record does"
    assert [index.problem(n) for n in range(3)] == [None] * (kept // 116) + [ends] * (
        3 - kept // 116
    )


def test_a_file_deleted_after_it_was_indexed_is_an_error(triple):
    index = tfrecord.index_files([str(triple[1])])
    triple[1].unlink()
    with pytest.raises(tf.errors.NotFoundError):
        next(iter(tf.data.Dataset.range(3).map(index.read)))
    assert index.problem(0).startswith("no such file")
