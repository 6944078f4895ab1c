"""Reading JSON back, against what the standard library makes of it."""

import dataclasses
import json
import math
import os
import re
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.support import records


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    sizes: tuple[int, int] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float | None = None
    on: bool = False
    steps: tuple[float, ...] | None = None
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    rest: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.rate is not None and self.rate < 0:
            raise ValueError(f"rate must be at least 0. Received: rate={self.rate}")


def read(tmp_path, text, kind=Outer):
    (tmp_path / "it.json").write_text(text)
    return records.read_json(tmp_path / "it.json", kind, "an outer")


def test_a_record_is_read_with_the_types_of_its_fields(tmp_path):
    found = read(
        tmp_path,
        """{"inner": {"name": "a", "sizes": [3, 4]}, "rate": 1, "on": true, "steps": [1, 2.5],
            "parts": {"x y": {"name": "b", "later": []}}, "rest": [[1.0]], "later": [NaN]}""",
    )
    parts = {"x y": Inner("b")}
    assert found == Outer(Inner("a", (3, 4)), 1.0, True, (1.0, 2.5), parts, [[1.0]])
    assert [type(value) for value in (found.rate, *found.steps)] == [float] * 3
    # Unchecked contents stay as they were.
    assert json.dumps(found.rest) == "[[1.0]]"


def test_fields_that_are_not_given_have_their_defaults(tmp_path):
    assert read(tmp_path, '{"inner": {"name": "a"}}') == Outer(Inner("a"))
    assert read(tmp_path, '{"inner": {"name": "a"}, "rate": null}') == Outer(Inner("a"))


def test_a_whole_number_may_be_written_as_any_number_of_json_is(tmp_path):
    text = '{"inner": {"name": "a", "sizes": [3.0, 4e2]}}'
    sizes = read(tmp_path, text).inner.sizes
    assert sizes == (3, 400) and all(type(size) is int for size in sizes)


INNER = '{"inner": {"name": "a"}'


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("[]", "it must be an object. Received: []"),
        ("{}", "inner must be given. Received: nothing"),
        ('{"inner": []}', "inner must be an object. Received: []"),
        ('{"inner": {"name": 1}}', "inner.name must be a string. Received: 1"),
        ('{"inner": {"name": null}}', "inner.name must be a string. Received: null"),
        ('{"inner": {"name": "a", "sizes": 1}}', "inner.sizes must be a list. Received: 1"),
        (
            '{"inner": {"name": "a", "sizes": [1]}}',
            "inner.sizes[1] must be given. Received: nothing",
        ),
        (
            '{"inner": {"name": "a", "sizes": [1, 2, 3]}}',
            "inner.sizes must be a list of 2. Received: [1, 2, 3]",
        ),
        (
            '{"inner": {"name": "a", "sizes": [1, 2.5]}}',
            "inner.sizes[1] must be a whole number. Received: 2.5",
        ),
        (
            '{"inner": {"name": "a", "sizes": [1, true]}}',
            "inner.sizes[1] must be a whole number. Received: true",
        ),
        (INNER + ', "on": "false"}', 'on must be true or false. Received: "false"'),
        (INNER + ', "on": 1}', "on must be true or false. Received: 1"),
        (INNER + ', "rate": "1"}', 'rate must be a number or null. Received: "1"'),
        (INNER + ', "rate": false}', "rate must be a number or null. Received: false"),
        (INNER + ', "rate": NaN}', "rate must be a finite number or null. Received: NaN"),
        (INNER + ', "rate": 1e999}', "rate must be a finite number or null. Received: Infinity"),
        (INNER + ', "rate": -1}', "rate must be at least 0. Received: rate=-1.0"),
        (INNER + ', "steps": [1, null]}', "steps[1] must be a number. Received: null"),
        (INNER + ', "steps": {"1": 1}}', 'steps must be a list or null. Received: {"1": 1}'),
        (INNER + ', "rest": {}}', "rest must be a list. Received: {}"),
        (INNER + ', "parts": {"x": 1}}', "parts.x must be an object. Received: 1"),
        (
            INNER + ', "parts": {"x y\\n": {}}}',
            r'parts["x y\n"].name must be given. Received: nothing',
        ),
        (INNER + ', "on": true, "on": false}', 'each name once in an object. Received: "on"'),
        (INNER + f', "rate": {"9" * 41}}}', "at most 40 digits. Received: one of 41"),
        (INNER + f', "rest": {"[" * 64}{"]" * 64}}}', "nested at most 64 deep. Received: more"),
        ("[" * 100_000, "nested at most 64 deep. Received: more"),
        (INNER, "line 1 column 24 (char 23)"),
        ("", "it must be JSON. Received: Expecting value: line 1 column 1 (char 0)"),
        (
            INNER + f', "on": "{"x" * 999}"}}',
            f'on must be true or false. Received: "{"x" * 76}...',
        ),
        (INNER + ', "on": "\\u001b[31m\\n\\ud800é"}', r'Received: "\u001b[31m\n\ud800\u00e9"'),
    ],
    ids=range(30),
)
def test_what_is_no_record_is_named_with_file_field_rule_and_value(tmp_path, text, end):
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'it.json'} is not an outer: ")
    assert message.endswith(end) and "\n" not in message


def test_fields_of_another_version_are_refused_where_asked_for():
    with pytest.raises(ValueError) as error:
        records.typed({"name": "a", "later": 1}, Inner, "inner", exact=True)
    assert str(error.value) == (
        'inner must have no other fields than name, sizes. Received: "later"'
    )


@pytest.mark.parametrize("data", [b"\xff{}", b'{"inner": "\xe9"}', '{"a": "é"}'.encode("utf-16")])
def test_what_is_no_utf8_is_named(tmp_path, data):
    (tmp_path / "it.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"it\.json is not an outer: it must be UTF-8.*byte 0x"):
        records.read_json(tmp_path / "it.json", Outer, "an outer")


def test_only_regular_files_of_a_bearable_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "endless"):
        with pytest.raises(ValueError, match=f"{name} must be a file"):
            records.contents(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="large must have at most 67,108,864 bytes"):
        records.contents(tmp_path / "large")
    with pytest.raises(FileNotFoundError):
        records.contents(tmp_path / "none")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**50), 10**50)
    | st.floats()
    | st.text(st.characters(), max_size=20),
    lambda parts: (
        st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=5), parts, max_size=4)
    ),
    max_leaves=20,
)
KINDS = (bool, int, float, str, int | None, tuple[int, int], tuple[float, ...] | None, Inner)


def fits(value, kind):
    """Whether a value of json.loads may be taken for one of a kind."""
    if kind is None or kind is type(None):
        return value is None
    if typing.get_args(kind) and typing.get_origin(kind) is not tuple:
        return any(fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        first, second = typing.get_args(kind)
        if not isinstance(value, list) or (second is not ... and len(value) != 2):
            return False
        return all(fits(part, first) for part in value)
    if kind is Inner:
        return isinstance(value, dict) and fits(value.get("name"), str)
    if kind in (int, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and (kind is float or value == int(value))
    return isinstance(value, kind)


def is_typed(value, kind):
    """Whether a value has a type, with all that it holds."""
    if typing.get_origin(kind) is tuple:
        first, second = typing.get_args(kind)
        long_enough = second is ... or len(value) == 2
        return type(value) is tuple and long_enough and all(is_typed(e, first) for e in value)
    if typing.get_args(kind):
        return any(is_typed(value, each) for each in typing.get_args(kind) if each)
    return type(value) is kind


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(JSON_VALUES, st.sampled_from(KINDS))
def test_any_value_becomes_one_of_the_type_or_is_refused(value, kind):
    text = json.dumps(value)
    try:
        found = records.typed(records.parse_json(text), kind)
    except ValueError as error:
        digits = max(map(len, re.findall(r"[0-9]+", text)), default=0)
        assert not fits(json.loads(text), kind) or digits > 40
        assert str(error).isprintable() and len(str(error)) < 250
    else:
        assert fits(json.loads(text), kind)
        assert is_typed(found, kind)
        if kind is not Inner:
            assert json.loads(json.dumps(found)) == json.loads(text)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_parsed_as_the_standard_library_does_or_refused(data):
    try:
        expected = json.loads(data.decode())
    except ValueError:
        with pytest.raises(ValueError):
            records.parse_json(records.decoded(data))
    else:
        assert json.dumps(records.parse_json(records.decoded(data))) == json.dumps(expected)


def test_values_are_shown_as_json_has_them_cut_and_escaped():
    assert records.short((1, None, "é\n")) == r'[1, null, "\u00e9\n"]'
    assert records.short("x" * 100) == '"' + "x" * 76 + "..."
