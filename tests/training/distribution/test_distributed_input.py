"""Images that can no longer be read are named, and nothing else is hidden."""

import pytest
import tensorflow as tf

from keras_preact.training.distribution.distributed_input import (
    UnreadableError,
    naming_unreadable,
)

FAILED = tf.errors.DataLossError(None, None, "corrupted record at 12")


class Data:
    """Of which some images cannot be read."""

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


def test_where_all_can_be_read_the_error_is_another():
    data = Data(train=["a.jpg"])
    with pytest.raises(tf.errors.DataLossError), naming_unreadable(data, "eval", lambda: [1]):
        raise FAILED


def test_nothing_is_read_where_nothing_or_something_else_fails():
    data = Data(train=["a.jpg"])
    with naming_unreadable(data, "train", lambda: [1]):
        pass
    with pytest.raises(KeyError), naming_unreadable(data, "train", lambda: [1]):
        raise KeyError
    assert data.asked == []
