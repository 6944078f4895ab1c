"""python -m keras_preact.benchmark as a user starts it."""

import csv
import pathlib
import subprocess
import sys

import pytest

from keras_preact.benchmark.rows import COLUMNS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TIMEOUT_SECONDS = 300


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_preact.benchmark", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


@pytest.mark.slow
def test_a_tiny_benchmark_prints_a_table_and_writes_csv_and_picture(tmp_path):
    figures, picture = tmp_path / "figures.csv", tmp_path / "picture.png"
    figures.write_text(f"{','.join(COLUMNS)}\n")
    done = call(
        *("--models=8", "--precisions=float32", "--modes=train", "--frameworks=keras_preact,keras"),
        *("--image_size=8", "--batch_size=4", "--rounds=1", "--steps=2"),
        *(f"--csv={figures}", f"--plot={picture}"),
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(figures.read_text().splitlines()))
    assert [row["framework"] for row in rows] == ["keras_preact", "keras"]
    for row in rows:
        assert row["error"] == ""
        speed = f"{float(row['images_per_second']):,.1f}"
        [line] = [line for line in done.stdout.splitlines() if f"  {row['framework']} " in line]
        assert speed in line
        # TensorFlow alone takes more than 200 MiB; a tiny net adds little.
        assert 200 < float(row["peak_memory_mebibytes"]) < 4000
        assert float(row["first_step_seconds"]) > 0
        assert float(row["share_of_peak"]) > 0
    ours, stock = (float(row["images_per_second"]) for row in rows)
    assert float(rows[1]["keras_preact_times"]) == ours / stock
    assert "Arithmetic peak in float32" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.csv", "picture.png"]


def test_wrong_flags_end_with_code_2_before_anything_is_measured(tmp_path):
    done = call("--models=20,21", f"--csv={tmp_path}/figures.csv")
    assert done.returncode == 2
    assert "6n+2" in done.stderr and "Received: depth=21" in done.stderr
    assert "Traceback" not in done.stderr and "round 1" not in done.stderr
    assert not list(tmp_path.iterdir())
