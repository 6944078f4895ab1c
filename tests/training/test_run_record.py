"""config.json: records of runs are read, invalid ones are refused."""

import copy
import json
import math
import types
import typing

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from keras_preact.data import DatasetInfo
from keras_preact.training import TrainConfig, run_record

CONFIG = TrainConfig(
    dataset="digits",
    depth=8,
    run_dir="runs/a",
    warmup_steps=400,
    drop_steps=(3, 4),
    ema_decay=0.9,
    devices="1",
)
INFO = DatasetInfo("digits", ("a", "b"), (8, 8, 1), 10, 5, (1.0,), (2.0,), 1.0)
RECORD = {
    "config": CONFIG.to_json(),
    "dataset": INFO.to_json(),
    "decision": {"strategy": "one_device"},
    "versions": {"keras": "3.15.1"},
    "history": [{"step": 0, "command": ["train.py"], "changes": {}}],
}


def read(folder, record):
    path = folder / "config.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return run_record.read(path)


def with_changes(**changes):
    """The record with other values, as in config__seed=1."""
    record = copy.deepcopy(RECORD)
    for place, value in changes.items():
        *parents, name = place.split("__")
        part = record
        for parent in parents:
            part = part[parent]
        part[name] = value
    return record


def without(*place):
    record = copy.deepcopy(RECORD)
    part = record
    for parent in place[:-1]:
        part = part[parent]
    del part[place[-1]]
    return record


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read(tmp_path, RECORD) == run_record.RunRecord(CONFIG, INFO, RECORD["history"])


@pytest.mark.parametrize(
    "record",
    [
        with_changes(run="1f7a"),
        with_changes(run=None),
        # Parts that nobody reads may be of another version, damaged or missing.
        with_changes(plan=5, versions=None),
        without("decision"),
        # Fields of later versions have their defaults.
        without("config", "recompute_bn_batches"),
        # As users of the library may have given them.
        with_changes(config__warmup_steps=400.0, config__drop_steps=[3.0, 4.0]),
        with_changes(dataset__mean=[1]),
    ],
    ids=range(7),
)
def test_records_of_other_versions_are_read(tmp_path, record):
    expected = run_record.RunRecord(CONFIG, INFO, RECORD["history"], record.get("run"))
    assert read(tmp_path, record) == expected


def test_a_record_without_a_history_has_an_empty_one(tmp_path):
    assert read(tmp_path, without("history")).history == []


def test_entries_of_the_history_are_kept_whatever_they_hold(tmp_path):
    text = '[5, {"command": ["\\udcff"], "rate": [1.0, NaN]}]'
    found = read(tmp_path, with_changes(history=json.loads(text))).history
    assert json.dumps(found) == text


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (with_changes(config__devices=1), "config.devices must be a string or null. Received: 1"),
        (
            with_changes(config__devices=["GPU:0"]),
            'config.devices must be a string or null. Received: ["GPU:0"]',
        ),
        (
            with_changes(config__deterministic="false"),
            'config.deterministic must be true or false. Received: "false"',
        ),
        (with_changes(config__seed=True), "config.seed must be a whole number. Received: true"),
        (
            with_changes(config__depth="8"),
            'config.depth must be a whole number or null. Received: "8"',
        ),
        (with_changes(config__depth=None), "config.depth must be given. Received: null"),
        (with_changes(config__dataset=5), "config.dataset must be a string or null. Received: 5"),
        (with_changes(config__unit=None), "config.unit must be a string. Received: null"),
        (
            with_changes(config__learning_rate=math.inf),
            "must be a finite number or null. Received: Infinity",
        ),
        (
            with_changes(config__drop_steps=[3, "4"]),
            'config.drop_steps[1] must be a whole number. Received: "4"',
        ),
        (with_changes(config__seed=-1), "seed must be at least 0"),
        (with_changes(config__colour="blue"), 'Unknown configuration fields: "colour"'),
        (with_changes(config__shortcut_arguments="self=1", config__shortcut="dropout"), "self"),
        (with_changes(config__unit="x" * 9999), "unit must be one of"),
        (with_changes(config=5), "config must be an object. Received: 5"),
        (without("config"), "config must be given. Received: nothing"),
        (with_changes(dataset=5), "dataset must be an object. Received: 5"),
        (
            with_changes(dataset__colour=1),
            'interpolation, multi_label, test_count. Received: "colour"',
        ),
        (without("dataset", "margin"), "dataset.margin must be given. Received: nothing"),
        (with_changes(dataset__mean=["a"]), 'dataset.mean[0] must be a number. Received: "a"'),
        (with_changes(dataset__mean=None), "dataset.mean must be a list. Received: null"),
        (
            with_changes(dataset__mean=[1.0, 2.0]),
            "a number, at least 0, for each of 1 channels. Received: [1.0, 2.0]",
        ),
        (with_changes(dataset__std=[-1.0]), "dataset.std must have a number, at least 0"),
        (with_changes(dataset__image_shape=[8, 8]), "dataset.image_shape[2] must be given"),
        (
            with_changes(dataset__image_shape=[8, 0, 1]),
            "must be 1 to 2147483647. Received: [8, 0, 1, 10, 5]",
        ),
        (with_changes(dataset__train_count=2**31), "must be 1 to 2147483647"),
        (with_changes(dataset__class_names=[]), "dataset.class_names must have a class"),
        (
            with_changes(dataset__class_names=["a", 1]),
            "dataset.class_names[1] must be a string. Received: 1",
        ),
        (with_changes(dataset__margin=0), "dataset.margin be above 0"),
        (with_changes(history=5), "history must be a list. Received: 5"),
        (with_changes(history=None), "history must be a list. Received: null"),
        (
            json.dumps(with_changes(history=[])).replace("[]", "[" * 999 + "]" * 999),
            "nested at most 64 deep",
        ),
        (json.dumps(RECORD)[:-20], "it must be JSON"),
        (
            json.dumps(RECORD).replace('"seed": 0', '"seed": 0, "seed": 1'),
            'each name once in an object. Received: "seed"',
        ),
        ("", "it must be JSON"),
    ],
    ids=range(35),
)
def test_an_invalid_record_is_refused_with_file_field_rule_and_value(tmp_path, record, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, record)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'config.json'} is not the record of a run: ")
    assert words in message and "\n" not in message and len(message) < 1200


def typed(value, hint):
    """Whether a value and all that it holds are of a type, by Python's own rules."""
    if isinstance(hint, types.UnionType):
        return any(typed(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        first, *rest = typing.get_args(hint)
        long_enough = rest == [...] or len(value) == 1 + len(rest)
        return type(value) is tuple and long_enough and all(typed(each, first) for each in value)
    return type(value) is hint and (hint is not float or math.isfinite(value))


def all_typed(instance):
    hints = typing.get_type_hints(type(instance))
    return all(typed(getattr(instance, name), hint) for name, hint in hints.items())


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["false", "1", "identity", "a=--1", 1e308, 10**400, 2**31, -1, 0.5, 1.0]),
    lambda parts: (
        st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=5), parts, max_size=4)
    ),
    max_leaves=10,
)
PLACES = [
    *((name,) for name in RECORD),
    *((part, name) for part in ("config", "dataset") for name in RECORD[part]),
    *(("dataset", "class_names", 0), ("dataset", "image_shape", 2), ("dataset", "mean", 0)),
    *(("config", "drop_steps", 1), ("config", "new"), ("new",), ("history", 0)),
]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON_VALUES), min_size=1, max_size=2))
def test_any_values_are_read_with_their_types_or_refused_with_the_file(tmp_path_factory, changes):
    record = copy.deepcopy(RECORD)
    for (*parents, name), value in changes:
        part = record
        try:
            for parent in parents:
                part = part[parent]
            part[name] = value
        except (IndexError, KeyError, TypeError):
            reject()  # an earlier change has put something else there
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(json.dumps(record))
    try:
        found = run_record.read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is not the record of a run: ")
    else:
        assert all_typed(found.config) and all_typed(found.dataset)
        # 1 and 1.0 are one value for Python, and one number for JSON.
        written = json.loads(json.dumps(record))
        given_fields = json.loads(json.dumps(found.config.to_json()))
        assert given_fields == {**given_fields, **written["config"]}
        assert json.loads(json.dumps(found.dataset.to_json())) == written["dataset"]
        assert json.dumps(found.history) == json.dumps(written.get("history", []))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_bytes_are_read_or_refused_with_the_file(tmp_path_factory, data):
    text = json.dumps(RECORD).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_bytes(text[:start] + data.draw(st.binary(max_size=20)) + text[end:])
    try:
        found = run_record.read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is not the record of a run: ")
    else:
        assert all_typed(found.config) and all_typed(found.dataset)
