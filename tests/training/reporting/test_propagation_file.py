import csv
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.analysis import Backward, Forward
from keras_preact.training.reporting import propagation_file
from keras_preact.training.reporting.propagation_file import PropagationWriter, Record

UNITS = ("stage1_unit1", "stage1_unit2", "head, of two")
FIGURES = (
    *("gradient_norm", "shortcut_norm", "residual_norm", "cosine"),
    *("truncated_fraction", "zero_fraction", "variance"),
)


PAIRS = [(step, unit) for step in (0, 9) for unit in ("stage1_unit1", "stage1_unit2")]


def filled(kind, **values):
    """Results with placeholders in the fields that no test reads."""
    fields = [field.name for field in dataclasses.fields(kind)]
    return kind(**{**dict.fromkeys(fields), **values})


def record(step):
    """A record with all values different, of more digits than are written."""
    figures = np.random.default_rng(step).uniform(1e-9, 1e3, (7, len(UNITS)))
    figures[3, 0], figures[0, 1], figures[1, 2] = np.nan, np.inf, 0
    of = dict(zip(FIGURES, figures, strict=True))
    backward = filled(Backward, units=UNITS, **{name: of[name] for name in FIGURES[:4]})
    forward = filled(Forward, units=UNITS, **{name: of[name] for name in FIGURES[4:]})
    return Record(step, forward, backward), of


def written(folder, *steps):
    """Writes a propagation.csv of these steps; returns its path."""
    log = PropagationWriter(folder / "propagation.csv")
    for step in steps:
        log.add(record(step)[0])
    return folder / "propagation.csv"


def test_records_are_read_back_as_they_were_written(tmp_path):
    log = propagation_file.read(written(tmp_path, 0, 50, 1_234_567))
    assert log.steps.tolist() == [0, 50, 1_234_567]
    assert log.units == UNITS
    for name in FIGURES:
        expected = [record(step)[1][name] for step in (0, 50, 1_234_567)]
        assert getattr(log, name).dtype == np.float64
        np.testing.assert_allclose(getattr(log, name), expected, rtol=1e-5, err_msg=name)


def test_the_file_has_a_row_for_each_unit_of_each_record(tmp_path):
    with written(tmp_path, 0, 7).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["unit"]) for row in rows] == [
        (step, unit) for step in ("0", "7") for unit in UNITS
    ]
    assert list(rows[0]) == ["step", "unit", *FIGURES]
    _, of = record(7)
    for row, values in zip(rows[3:], zip(*of.values(), strict=True), strict=True):
        np.testing.assert_allclose([float(row[name]) for name in FIGURES], values, rtol=1e-5)


def test_without_a_record_none_is_read(tmp_path):
    path = tmp_path / "propagation.csv"
    assert propagation_file.read(path) is None
    written(tmp_path, 5)
    PropagationWriter(path).drop_after(4)
    assert path.exists()
    assert propagation_file.read(path) is None
    assert not PropagationWriter(path).has(5)


def test_a_resumed_run_drops_the_later_records_and_keeps_the_others_to_the_byte(tmp_path):
    path = written(tmp_path, 0, 10)
    kept = path.read_bytes()
    written(tmp_path, 20, 30)
    log = PropagationWriter(path)
    log.drop_after(19)
    assert path.read_bytes() == kept
    assert [log.has(step) for step in (0, 10, 20, 30)] == [True, True, False, False]
    log.add(record(20)[0])
    assert propagation_file.read(path).steps.tolist() == [0, 10, 20]


def test_without_a_record_to_drop_no_file_is_written(tmp_path):
    PropagationWriter(tmp_path / "propagation.csv").drop_after(0)
    assert not list(tmp_path.iterdir())
    path = written(tmp_path, 0, 10)
    file = path.stat().st_ino
    PropagationWriter(path).drop_after(10)
    assert path.stat().st_ino == file


def test_a_record_that_could_not_be_written_is_written_with_the_next(tmp_path):
    path = tmp_path / "propagation.csv"
    log = PropagationWriter(path)
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        log.add(record(0)[0])
    assert log.has(0)
    path.rmdir()
    log.add(record(5)[0])
    assert propagation_file.read(path).steps.tolist() == [0, 5]


def replaced(number, line):
    def harm(lines):
        return [*lines[: number - 1], line, *lines[number:]]

    return harm


def without(number):
    return lambda lines: [*lines[: number - 1], *lines[number:]]


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (replaced(3, "0,stage1_unit2,1,2,3"), 3),
        (replaced(3, "0,stage1_unit2,1,2,3,4,5,6,7,8"), 3),
        (replaced(3, "0,stage1_unit2,1,2,3,4,5,6,seven"), 3),
        (replaced(3, "zero,stage1_unit2,1,2,3,4,5,6,7"), 3),
        (replaced(3, "0"), 3),
        (replaced(6, "9,stage9_unit9,1,2,3,4,5,6,7"), 6),
        (replaced(6, "8,stage1_unit2,1,2,3,4,5,6,7"), 5),
        (without(5), 5),
        (without(7), 7),
        (lambda lines: [*lines, *lines[1:4]], 8),
        (lambda lines: [lines[0], *lines[4:7], *lines[1:4]], 2),
        (replaced(1, "step,unit"), 1),
        (lambda lines: [], 1),
        (replaced(3, "-1,stage1_unit2,1,2,3,4,5,6,7"), 3),
        (replaced(3, "1.0,stage1_unit2,1,2,3,4,5,6,7"), 3),
        (replaced(3, f"{'9' * 30},stage1_unit2,1,2,3,4,5,6,7"), 3),
        (replaced(3, f"0,{'x' * 200_000},1,2,3,4,5,6,7"), 3),
    ],
    ids=range(17),
)
def test_a_damaged_line_is_named(tmp_path, harm, line):
    path = written(tmp_path, 0, 9)
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in harm(lines)))
    with pytest.raises(ValueError, match=rf"csv must have a line for each unit.*: line {line}:"):
        propagation_file.read(path)
    with pytest.raises(ValueError, match=r"propagation\.csv must"):
        PropagationWriter(path)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60), st.integers(0, 300), st.integers(0, 300))
def test_any_bytes_are_records_or_refused_with_the_file(tmp_path_factory, data, at, end):
    path = tmp_path_factory.getbasetemp() / "propagation.csv"
    lines = [",".join(("step", "unit", *FIGURES)), *(f"{s},{u},1,2,3,4,5,6,7" for s, u in PAIRS)]
    whole = "\n".join([*lines, ""]).encode()
    path.write_bytes(whole[:at] + data + whole[max(at, end) :])
    try:
        log = propagation_file.read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} ")
        return
    if log is not None:
        assert log.steps.dtype == np.int64 and list(log.steps) == sorted(set(log.steps))
        for name in FIGURES:
            assert getattr(log, name).dtype == np.float64
            assert getattr(log, name).shape == (len(log.steps), len(log.units))
