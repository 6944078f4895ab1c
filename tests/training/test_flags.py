import dataclasses

import pytest
from absl import flags

from keras_preact.training import TrainConfig
from keras_preact.training import flags as config_flags


@pytest.fixture
def values():
    values = flags.FlagValues()
    config_flags.define(TrainConfig, values)
    return values


def parse(values, *arguments):
    config_flags.parser("A description.", TrainConfig, values)(["train.py", *arguments])
    return config_flags.given(TrainConfig, values)


def test_only_what_was_given_is_returned_in_the_type_of_its_field(values):
    given = parse(
        values,
        *("--depth=20", "--drop_epochs=1,2.5", "--noresume", "--data_dir=~/images"),
        *("--decay_bn=false", "--learning_rate=1e-2", "--unit=original"),
        *("--sync_bn", "--profile_steps=10,20", "--ema_decay=0.999", "--steps_per_loop=5"),
    )
    assert given == {
        "depth": 20,
        "drop_epochs": (1.0, 2.5),
        "resume": False,
        "data_dir": "~/images",
        "decay_bn": False,
        "learning_rate": 0.01,
        "unit": "original",
        "sync_bn": True,
        "profile_steps": (10, 20),
        "ema_decay": 0.999,
        "steps_per_loop": 5,
    }


def test_without_flags_the_defaults_of_the_configuration_hold(values):
    assert parse(values) == {}
    for field in dataclasses.fields(TrainConfig):
        assert values[field.name].value == field.default


def test_an_empty_list_differs_from_none(values):
    assert parse(values, "--drop_steps=") == {"drop_steps": ()}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--depth=twenty", "twenty"),
        ("--global_batchsize=3", "global_batch_size"),
        ("--drop_steps=1,x", "int numbers separated by commas"),
        ("digits", "Only flags are understood. Received: digits"),
        ("--flagfile=/no/such.flags", "/no/such.flags"),
    ],
)
def test_what_cannot_be_parsed_ends_with_code_2_and_one_message(values, capsys, argument, words):
    with pytest.raises(SystemExit) as ended:
        parse(values, argument)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and words in error


def test_help_lists_every_flag_under_its_group(values, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(values, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    groups = ("run", "machine", "data", "model", "regularization", "optimization")
    sections = dict.fromkeys(groups)
    for group in sections:
        sections[group] = shown.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
    for field in dataclasses.fields(TrainConfig):
        assert f"  --{field.name}: " in sections[field.metadata["group"]]
