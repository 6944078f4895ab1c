"""Unreadable images are named, and no other error is hidden."""

import pytest
import tensorflow as tf

from keras_preact.training.distribution.distributed_input import (
    UnreadableError,
    naming_unreadable,
)

FAILED = tf.errors.DataLossError(None, None, "corrupted record at 12")


class Data:
    """A data set with some unreadable images."""

    def __init__(self, **bad):
        self.bad, self.asked = bad, []

    def unreadable(self, split, indices):
        self.asked.append((split, list(indices)))
        return self.bad.get(split, [])


def test_all_images_that_cannot_be_read_are_named():
    data = Data(eval=["b.jpg: no such file", "shard 2, record 3: checksum"])
    with (
        pytest.raises(UnreadableError) as error,
        naming_unreadable(data, "eval", lambda: iter((4, 7))),
    ):
        raise FAILED
    assert data.asked == [("eval", [4, 7])]
    assert str(error.value).splitlines()[1:] == [
        "  b.jpg: no such file",
        "  shard 2, record 3: checksum",
    ]
    assert isinstance(error.value, ValueError) and error.value.__cause__ is FAILED


def test_if_all_images_can_be_read_the_error_passes():
    data = Data(train=["a.jpg"])
    with pytest.raises(tf.errors.DataLossError), naming_unreadable(data, "eval", lambda: [1]):
        raise FAILED


def test_images_are_read_again_only_after_an_error_of_tensorflow():
    data = Data(train=["a.jpg"])
    with naming_unreadable(data, "train", lambda: [1]):
        pass
    with pytest.raises(KeyError), naming_unreadable(data, "train", lambda: [1]):
        raise KeyError
    assert data.asked == []
