import csv
import dataclasses
import io
import math
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_runs import events, steps_shown

from keras_preact.training.reporting import metrics_file


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
    return metrics_file.Row(**{**values, **changes})


def make(folder, start_step=0):
    return metrics_file.MetricsLog(folder / "metrics.csv", folder / "tensorboard", start_step)


def written(log):
    """Writes metrics.csv and returns its bytes."""
    log.write_csv(log.csv())
    return log.csv()


def encode(image):
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return png.getvalue()


def test_rows_are_read_back_as_they_were_written(tmp_path):
    log = make(tmp_path)
    rows = [row(10), row(1_234_567, train_loss=0.0123457)]
    for each in rows:
        log.add(each)
    data = written(log)
    log.close()
    assert (tmp_path / "metrics.csv").read_bytes() == data
    assert metrics_file.read(tmp_path / "metrics.csv") == [
        rows[0],
        row(1_234_567, epoch=123457.0, train_loss=0.0123457),
    ]
    with (tmp_path / "metrics.csv").open() as file:
        assert [line["step"] for line in csv.DictReader(file)] == ["10", "1234567"]
    # A resumed run writes the same bytes.
    assert make(tmp_path, start_step=1_234_567).csv() == data


def test_rows_are_in_the_file_once_it_is_written_and_not_before(tmp_path):
    log = make(tmp_path)
    assert written(log).decode().strip() == ",".join(metrics_file.COLUMNS)
    log.add(row(10))
    assert metrics_file.read(tmp_path / "metrics.csv") == []
    data = log.csv()
    log.add(row(20))
    log.write_csv(data)
    assert [each.step for each in metrics_file.read(tmp_path / "metrics.csv")] == [10]


def test_steps_that_will_be_taken_again_are_dropped(tmp_path):
    log = make(tmp_path)
    for step in (10, 20, 30):
        log.add(row(step))
    written(log)
    resumed = make(tmp_path, start_step=20)
    resumed.add(row(25))
    written(resumed)
    assert [each.step for each in metrics_file.read(tmp_path / "metrics.csv")] == [10, 20, 25]


def date_back(folder):
    """Waits for a new second, by which TensorBoard sorts the files of a run."""
    for path in folder.rglob("events.out.tfevents.*"):
        earlier = re.sub(r"\d{10}", lambda seconds: str(int(seconds[0]) - 1), path.name, count=1)
        path.rename(path.with_name(earlier))


def test_tensorboard_shows_each_step_once_however_often_a_run_was_set_back(tmp_path):
    sessions = [(0, (5, 10, 15, 20)), (10, (15, 20, 25)), (20, (22, 30)), (22, (30, 35))]
    for start, steps in sessions:
        date_back(tmp_path)
        log = make(tmp_path, start)
        for step in steps:
            log.train(step, loss=float(step), accuracy=0.5)
            log.add(row(step))
        log.close()
    for split, name in (("train", "loss"), ("train", "accuracy"), ("eval", "loss")):
        assert steps_shown(tmp_path, split, name) == [5, 10, 15, 20, 22, 30, 35]
    # Back to the beginning.
    date_back(tmp_path)
    log = make(tmp_path, 0)
    log.train(5, loss=7.0)
    log.close()
    [event] = events(tmp_path, "train").Tensors("loss")
    assert tf.make_ndarray(event.tensor_proto) == 7
    assert steps_shown(tmp_path, "eval", "loss") == []


def test_tensorboard_reads_the_figures(tmp_path):
    log = make(tmp_path)
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
    log = make(tmp_path)
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


@pytest.mark.parametrize(
    "line",
    [
        *("30,1.0", "hello,world", "1,2,3,4,5,6,7,8,9,10", "-1,2,3,4,5,6,7,8,9"),
        *("1.5,2,3,4,5,6,7,8,9", "1,2,3,4,nan,6,7,8,9", "1,2,inf,4,5,6,7,8,9"),
        *("1,2,3,4,1e999,6,7,8,9", f"{'9' * 5000},2,3,4,5,6,7,8,9", f"1,{'9' * 200_000},"),
    ],
    ids=range(10),
)
def test_a_damaged_line_is_named(tmp_path, line):
    log = make(tmp_path)
    log.add(row(10))
    written(log)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.csv must have a line of 9.*line 3"):
        metrics_file.read(tmp_path / "metrics.csv")


def test_training_that_overflowed_in_every_step_is_read_back(tmp_path):
    log = make(tmp_path)
    log.add(row(10, train_loss=math.nan, train_accuracy=math.nan))
    written(log)
    [read] = metrics_file.read(tmp_path / "metrics.csv")
    assert math.isnan(read.train_loss) and math.isnan(read.train_accuracy)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60), st.integers(0, 250), st.integers(0, 250))
def test_any_bytes_are_rows_or_refused_with_the_file(tmp_path_factory, data, at, end):
    path = tmp_path_factory.getbasetemp() / "metrics.csv"
    whole = (
        ",".join(metrics_file.COLUMNS) + "\n" + "10,1,1.5,0.5,1.25,0.5,0.1,99,3\n" * 3
    ).encode()
    path.write_bytes(whole[:at] + data + whole[max(at, end) :])
    try:
        rows = metrics_file.read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} ")
    else:
        for each in rows:
            values = dataclasses.asdict(each)
            assert type(values.pop("step")) is int
            for name, figure in values.items():
                assert type(figure) is float or (name in metrics_file.OPTIONAL and figure is None)


OLD = (
    b"step,epoch,train_loss,train_accuracy,eval_loss,eval_accuracy,learning_rate,images_per_second,"
    b"elapsed_seconds\n10,1,1.5,0.5,1.25,0.625,0.1,100,3\n"
)


def test_a_file_of_an_earlier_version_is_read_and_stays_as_it_is_until_a_row_has_more(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(OLD)
    assert metrics_file.read(tmp_path / "metrics.csv") == [row(10)]
    log = make(tmp_path, start_step=10)
    assert log.csv() == OLD
    log.add(row(20, eval_macro_f1=0.25))
    written(log)
    log.close()
    first, second = metrics_file.read(tmp_path / "metrics.csv")
    assert (first, second) == (row(10), row(20, eval_macro_f1=0.25))
    head, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert head.endswith(",elapsed_seconds,eval_macro_f1")
    assert [line.rpartition(",")[2] for line in lines] == ["", "0.25"]


def test_the_figures_of_several_labels_are_read_back_and_shown_by_tensorboard(tmp_path):
    figures = {"eval_mean_average_precision": 0.5, "eval_macro_f1": 0.25, "eval_micro_f1": 0.125}
    log = make(tmp_path)
    log.add(row(10, **figures))
    log.test(10, {"mean_average_precision": 0.75})
    written(log)
    log.close()
    [read] = metrics_file.read(tmp_path / "metrics.csv")
    assert read == row(10, **figures)
    assert read.scores == {
        "loss": 1.25,
        "accuracy": 0.625,
        **{name.removeprefix("eval_"): value for name, value in figures.items()},
    }
    for split, expected in (("eval", 0.5), ("test", 0.75)):
        [event] = events(tmp_path, split).Tensors("mean_average_precision")
        assert tf.make_ndarray(event.tensor_proto) == expected


@pytest.mark.parametrize("head", ["step,step", "eval_macro_f1,eval_macro_f1", "eval_f1"])
def test_columns_twice_or_of_another_name_are_refused(tmp_path, head):
    path = tmp_path / "metrics.csv"
    path.write_text(OLD.decode().replace("elapsed_seconds", f"elapsed_seconds,{head}"))
    with pytest.raises(ValueError, match=r"metrics\.csv must have a line of 9.*line 1"):
        metrics_file.read(path)


@pytest.mark.parametrize("name", ["", "train", "eval", "test"])
def test_a_folder_that_tensorboard_cannot_write_is_refused(tmp_path, name):
    metrics_file.check_writable(tmp_path / "tensorboard")
    log = make(tmp_path)
    log.test(1, {"loss": 1.0})
    log.close()
    metrics_file.check_writable(tmp_path / "tensorboard")
    path = tmp_path / "tensorboard" / name
    shutil.rmtree(path)
    for harm in (path.touch, lambda: path.symlink_to(tmp_path / "unmounted")):
        harm()
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} must be a folder, or not"):
            metrics_file.check_writable(tmp_path / "tensorboard")
        path.unlink()
