import csv
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_preact.training import metrics


def row(step, **changes):
    values = dict(
        step=step,
        epoch=step / 10,
        train_loss=1.5,
        train_accuracy=0.5,
        eval_loss=1.25,
        eval_accuracy=0.625,
        learning_rate=0.1,
        images_per_second=100.0,
        elapsed_seconds=3.0,
    )
    return metrics.Row(**{**values, **changes})


def events(folder, split):
    """What TensorBoard reads."""
    accumulator = EventAccumulator(str(folder / "events" / split), {"tensors": 0})
    accumulator.Reload()
    return accumulator


def encode(image):
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return png.getvalue()


def test_rows_are_read_back_as_they_were_written(tmp_path):
    log = metrics.MetricsLog(tmp_path / "metrics.csv", tmp_path / "events", start_step=0)
    rows = [row(10), row(1_234_567, train_loss=0.0123457)]
    for each in rows:
        log.add(each)
    log.close()
    assert metrics.read(tmp_path / "metrics.csv") == [
        rows[0],
        row(1_234_567, epoch=123457.0, train_loss=0.0123457),
    ]
    with (tmp_path / "metrics.csv").open() as file:
        assert [line["step"] for line in csv.DictReader(file)] == ["10", "1234567"]


def test_steps_that_will_be_taken_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    log = metrics.MetricsLog(path, tmp_path / "events", start_step=0)
    for step in (10, 20, 30):
        log.add(row(step))
    resumed = metrics.MetricsLog(path, tmp_path / "events", start_step=20)
    resumed.add(row(25))
    assert [each.step for each in metrics.read(path)] == [10, 20, 25]


def test_tensorboard_reads_the_figures(tmp_path):
    log = metrics.MetricsLog(tmp_path / "metrics.csv", tmp_path / "events", start_step=0)
    log.train(5, loss=2.5, learning_rate=0.01)
    log.add(row(10))
    log.close()
    assert set(events(tmp_path, "train").Tags()["tensors"]) == {"loss", "learning_rate"}
    [event] = events(tmp_path, "eval").Tensors("accuracy")
    assert event.step == 10
    assert tf.make_ndarray(event.tensor_proto) == pytest.approx(0.625)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_tensorboard_reads_pictures_and_texts(tmp_path, split):
    # Colours that a lossy format would not keep, and a grey file, which becomes a coloured one.
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    log = metrics.MetricsLog(tmp_path / "metrics.csv", tmp_path / "events", start_step=0)
    log.picture(split, 30, "colours", encode(image))
    log.picture(split, 40, "grey", encode(image[..., 0]))
    log.text(split, 30, "table", "| class |\n|---|\n| ant |")
    log.close()
    read = events(tmp_path, split)
    assert set(read.Tags()["tensors"]) == {"colours", "grey", "table"}
    for name, step, expected in (
        ("colours", 30, image),
        ("grey", 40, np.repeat(image[..., :1], 3, axis=2)),
    ):
        [event] = read.Tensors(name)
        width, height, png = tf.make_ndarray(event.tensor_proto)
        assert (event.step, int(width), int(height)) == (step, 7, 5)
        np.testing.assert_array_equal(Image.open(io.BytesIO(png)), expected)
    [event] = read.Tensors("table")
    assert event.step == 30
    assert tf.make_ndarray(event.tensor_proto).item() == b"| class |\n|---|\n| ant |"
    plugins = {
        name: read.SummaryMetadata(name).plugin_data.plugin_name for name in ("grey", "table")
    }
    assert plugins == {"grey": "images", "table": "text"}
    other = {"train": "eval", "eval": "train"}[split]
    assert events(tmp_path, other).Tags()["tensors"] == []


@pytest.mark.parametrize("line", ["30,1.0", "hello,world", "1,2,3,4,5,6,7,8,9,10"])
def test_a_damaged_line_is_named(tmp_path, line):
    log = metrics.MetricsLog(tmp_path / "metrics.csv", tmp_path / "events", start_step=0)
    log.add(row(10))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.csv must have a line of 9.*line 3"):
        metrics.read(tmp_path / "metrics.csv")
