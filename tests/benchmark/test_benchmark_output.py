import csv
import dataclasses
import importlib.metadata
import io

import matplotlib.image
import pytest

from keras_preact.benchmark import output, plot
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.rows import Row, csv_bytes
from keras_preact.benchmark.runner import Outcome

ROW = Row(
    model="resnet164",
    precision="mixed_bfloat16",
    mode="inference",
    framework="keras_preact",
    device="CPU",
    batch_size=128,
    image_pixels=32,
    rounds=3,
    steps=10,
    images_per_second=1234.5678,
    lowest_images_per_second=1200.0,
    highest_images_per_second=1300.25,
    keras_preact_times=1.0,
    first_step_seconds=98.76,
    peak_memory_mebibytes=12345.6,
    device_memory_mebibytes=None,
    gigaflops_per_image=0.5,
    share_of_peak=0.8725,
    error=None,
)
FAILED = dataclasses.replace(
    ROW,
    framework="torch",
    device=None,
    rounds=0,
    images_per_second=None,
    lowest_images_per_second=None,
    highest_images_per_second=None,
    keras_preact_times=None,
    first_step_seconds=None,
    peak_memory_mebibytes=None,
    share_of_peak=None,
    error="MemoryError: " + "a long story, " * 20,
)
STOCK = dataclasses.replace(
    ROW,
    framework="keras",
    images_per_second=617.2839,
    lowest_images_per_second=600.0,
    highest_images_per_second=700.0,
    keras_preact_times=2.0,
)
PEAKS = {"mixed_bfloat16": {"peak_teraflops": 0.4321, "size": 4096, "device": "CPU"}}


def text(rows, peaks=PEAKS, **options):
    return output.text(Outcome(rows, peaks), BenchmarkConfig(**options))


def test_the_csv_holds_every_field_of_every_row_as_it_was_measured():
    rows = [ROW, STOCK, FAILED]
    read = list(csv.DictReader(io.StringIO(csv_bytes(rows).decode())))
    assert len(read) == 3
    for line, row in zip(read, rows, strict=True):
        expected = dataclasses.asdict(row)
        assert list(line) == list(expected)
        for name, value in expected.items():
            if isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))


def test_the_table_groups_frameworks_and_shows_speed_ratio_time_memory_and_share():
    lines = text([ROW, STOCK]).splitlines()
    group = lines.index(
        "resnet164 mixed_bfloat16 inference, batches of 128 images of 32 x 32 pixels"
    )
    figures = "keras_preact 1,234.6 1,200.0 1,300.2 1.00 98.76 s 12,346 MiB 87.2%"
    assert " ".join(lines[group + 1].split()) == figures
    assert lines[group + 2].split()[:5] == ["keras", "617.3", "600.0", "700.0", "2.00"]
    assert sum("batches of 128" in line for line in lines) == 1


def test_every_line_fits_a_terminal_even_with_gpus_and_long_errors():
    gpu = dataclasses.replace(ROW, device="NVIDIA H200", device_memory_mebibytes=123456.0)
    peaks = {
        "mixed_float16": {"peak_teraflops": 0.1234567, "size": 4096, "device": "CPU"},
        "mixed_bfloat16": {"error": "ResourceExhaustedError: " + "of memory " * 30},
    }
    shown = text([gpu, FAILED], peaks)
    assert max(map(len, shown.splitlines())) <= 100
    assert "123,456 MiB" in shown and "NVIDIA H200" in shown
    assert "failed: MemoryError: a long story" in shown
    assert "not measured; ResourceExhaustedError" in shown


def test_the_machine_the_versions_and_the_peak_are_stated():
    shown = text([ROW])
    for package in ("tensorflow", "keras"):
        assert importlib.metadata.version(package) in shown
    assert "core" in shown and "no GPU in use" in shown
    assert "0.432 TFLOP/s, the best product of two 4096 x 4096 matrices" in shown


def test_devices_are_named_where_frameworks_see_different_ones():
    assert " on " not in text([ROW, STOCK]).partition("images/s is")[0]
    gpu = dataclasses.replace(STOCK, device="a GPU")
    shown = text([ROW, gpu])
    assert "  keras_preact on CPU  " in shown and "  keras on a GPU  " in shown


def test_a_single_measurement_is_called_one_and_a_median_a_median():
    assert "images/s is a single measurement" in text([ROW], rounds=1)
    assert "median of 5 processes" in text([ROW], rounds=5)


def test_the_picture_has_a_bar_in_the_colour_of_each_framework():
    names = list(plot.STYLES)[2:]
    rows = [ROW, STOCK, *(dataclasses.replace(STOCK, framework=name) for name in names)]
    rows += [dataclasses.replace(row, mode="train") for row in rows]
    picture = matplotlib.image.imread(io.BytesIO(plot.png(rows, "a machine")))[..., :3]
    for style in plot.STYLES.values():
        rgb = [int(style["facecolor"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(picture - rgb).max(axis=-1) < 0.01).sum() > 1000


@pytest.mark.parametrize("rows", [[FAILED], [ROW, FAILED], [STOCK]])
def test_failed_and_missing_rows_leave_the_picture_whole(rows):
    assert plot.png(rows, "a machine").startswith(b"\x89PNG")
