"""Compares two runs to the last bit, for tests."""

import numpy as np
import tensorflow as tf

from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.train_step import REPORT

TIMES_AND_RATES = ("images_per_second", "elapsed_seconds")


def saved(folder):
    """Reads the newest checkpoint, without seconds and the length of their digits."""
    path = checkpoint.find(RunFolder(folder).checkpoints, "newest")
    reader = tf.train.load_checkpoint(f"{path}/variables")
    left_out = ("_CHECKPOINTABLE_OBJECT_GRAPH", "position/csv_bytes")
    names = reader.get_variable_to_shape_map()
    values = {name: reader.get_tensor(name) for name in names if not name.startswith(left_out)}
    [reports] = [name for name in values if name.startswith("position/reports")]
    values[reports] = np.delete(values[reports], REPORT.index("wait_seconds"), axis=1)
    return values


def rows(folder):
    """Reads the rows of metrics.csv, without times and rates."""
    return [
        {name: value for name, value in vars(row).items() if name not in TIMES_AND_RATES}
        for row in metrics_file.read(RunFolder(folder).metrics)
    ]


def assert_same_runs(first, second):
    left, right = saved(first), saved(second)
    assert left.keys() == right.keys() and len(left) > 60
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert rows(first) == rows(second) != []
