"""Reading CSV files back, against what the module csv makes of them."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.support import tables
from keras_preact.support.tables import Table

COLUMNS = ("step", "unit", "value")
TABLE = Table(COLUMNS, "a line for each unit")


def rows(tmp_path, data):
    path = tmp_path / "it.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(TABLE.rows(path))


def test_lines_are_read_with_their_numbers_in_the_file(tmp_path):
    text = 'step,unit,value\n1,"a, ""b""",2\n\n3,"two\nlines",4\r\n5,é,\n'
    assert rows(tmp_path, text) == [
        (2, ["1", 'a, "b"', "2"]),
        (5, ["3", "two\nlines", "4"]),
        (6, ["5", "é", ""]),
    ]
    assert rows(tmp_path, "step,unit,value\n") == []


def test_columns_may_have_another_order(tmp_path):
    assert rows(tmp_path, "value,step,unit\n2,1,a\n") == [(2, ["1", "a", "2"])]


def test_optional_columns_may_be_missing_and_come_last(tmp_path):
    table = Table(COLUMNS[:1], "a line", COLUMNS[1:])
    path = tmp_path / "it.csv"
    for text, cells in (
        ("step\n1\n", ["1", "", ""]),
        ("value,step\n5,1\n", ["1", "", "5"]),
        ("value,step,unit\n5,1,\n", ["1", "", "5"]),
    ):
        path.write_text(text)
        assert list(table.rows(path)) == [(2, cells)]
    for text in ("unit\na\n", "step,step\n1,1\n", "step,unit,unit\n1,a,a\n", "step,x\n1,2\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="line 1"):
            list(table.rows(path))


HEAD = b"step,unit,value\n"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", "Received: line 1: []"),
        (b"step,unit\n1,a\n", 'Received: line 1: ["step", "unit"]'),
        (b"step,unit,value,value\n", 'line 1: ["step", "unit", "value", "value"]'),
        (b"step,unit,values\n", 'line 1: ["step", "unit", "values"]'),
        (HEAD + b"1,a,2\n1,a\n", 'Received: line 3: ["1", "a"]'),
        (HEAD + b"1,a,2,3\n", 'Received: line 2: ["1", "a", "2", "3"]'),
        (HEAD + b'1,a,"2\n', "unexpected end of data"),
        (HEAD + b'1,"a"b,2\n', "expected after"),
        (HEAD + b"1,a," + b"2" * 131_073, "field larger than field limit (131072)"),
        (HEAD + b"1,a,\xff\n", "it must be UTF-8. Received: byte 0xff at 20"),
        (HEAD + b"1,a,\0\n", "it must be text. Received: a NUL byte"),
        (b"\x89PNG\r\n\x1a\n", "it must be UTF-8. Received: byte 0x89 at 0"),
        (HEAD + b"1,a,2,\x1b[31m\n", r'line 2: ["1", "a", "2", "\u001b[31m"]'),
        (HEAD + b"1,a,2," + b"x" * 9999, "xxx..."),
    ],
    ids=range(14),
)
def test_what_is_no_such_table_is_named_with_file_and_line(tmp_path, data, end):
    with pytest.raises(ValueError) as error:
        rows(tmp_path, data)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "it.csv")) and message.isprintable()
    assert end in message and len(message) < 400


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.booleans())
def test_any_bytes_are_lines_of_the_columns_or_refused(tmp_path_factory, data, headed):
    path = tmp_path_factory.mktemp("any") / "it.csv"
    path.write_bytes(HEAD + data if headed else data)
    try:
        found = list(TABLE.rows(path))
    except ValueError as error:
        assert str(path) in str(error)
    else:
        text = io.StringIO(path.read_bytes().decode(), newline="")
        head, *expected = filter(None, csv.reader(text))
        assert sorted(head) == sorted(COLUMNS)
        assert [sorted(cells) for _, cells in found] == [sorted(cells) for cells in expected]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=25) | st.integers().map(str) | st.floats().map(str))
def test_a_cell_is_a_number_or_refused(cell):
    try:
        number = tables.whole(cell)
    except ValueError:
        assert not (cell.isascii() and cell.isdigit() and len(cell) <= 18)
    else:
        assert number == int(cell) >= 0
    try:
        assert abs(tables.finite(cell)) < float("inf")
    except ValueError:
        assert cell.strip().lower().lstrip("+-") in ("nan", "inf", "infinity") or not is_float(cell)


def is_float(cell):
    try:
        return abs(float(cell)) < float("inf")
    except ValueError:
        return False
