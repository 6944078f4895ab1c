import dataclasses
import os
import re

import pytest
from absl import flags

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.exporting import ExportConfig
from keras_preact.studies.config import AnalysisConfig
from keras_preact.support import flags as config_flags
from keras_preact.training import TrainConfig


@pytest.fixture
def values():
    values = flags.FlagValues()
    config_flags.define(TrainConfig, values)
    return values


def parse(values, *arguments):
    parser = config_flags.parser("A description.", TrainConfig, values)
    parser(["python train.py", *arguments])
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


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("lr", "learning_rate"),
        ("epochs", "train_epochs"),
        ("steps", "train_steps"),
        ("batch_size", "global_batch_size"),
        ("wd", "weight_decay"),
        ("gpus", "devices"),
    ],
)
def test_a_name_that_other_programs_use_leads_to_ours(values, given, ours):
    with pytest.raises(ValueError, match=f"flag '{given}'. Did you mean: {ours} ?"):
        parse(values, f"--{given}=1")


def test_no_name_is_suggested_that_a_program_lacks_and_each_is_somebodys():
    fields = [
        {field.name for field in dataclasses.fields(config)}
        for config in (TrainConfig, ExportConfig, AnalysisConfig, BenchmarkConfig)
    ]
    assert set(config_flags.OTHER_NAMES.values()) <= set().union(*fields, {"recipe"})
    values = flags.FlagValues()
    config_flags.define(ExportConfig, values)
    with pytest.raises(ValueError, match="Unknown command line flag 'lr'\n"):
        config_flags.parser("", ExportConfig, values)(["python export.py", "--lr=1"])


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
        ("--noresume=3", "does not take an argument"),
        ("digits", "Only flags are understood. Received: digits"),
        ("--flagfile=/no/such.flags", "/no/such.flags (No such file or directory)"),
        ("--flagfile", "--flagfile with no argument"),
    ],
)
def test_what_cannot_be_parsed_is_one_error_that_names_it(values, argument, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(values, argument)


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "runs/a", "b=1", "--depth=20", "--seed", "7", "--resume"],
        ["--depth=20", "--seed", "7", "--resume", "compare", "runs/a", "b=1"],
        ["compare", "--depth=20", "runs/a", "--seed", "7", "b=1", "--resume"],
        ["compare", "--flagfile=net.flags", "runs/a", "--resume", "b=1"],
        ["--depth=20", "--seed=7", "--resume", "--", "compare", "runs/a", "b=1"],
    ],
)
def test_where_words_are_allowed_they_stand_before_between_and_after_flags(
    values, folder, arguments
):
    (folder / "net.flags").write_text("--depth=20\n--seed=7\n")
    parser = config_flags.parser("A description.", TrainConfig, values, words=True)
    assert parser(["a program", *arguments]) == ["a program", "compare", "runs/a", "b=1"]
    assert config_flags.given(TrainConfig, values) == {"depth": 20, "seed": 7, "resume": True}


def test_there_may_be_no_words_where_they_are_allowed(values):
    parser = config_flags.parser("A description.", TrainConfig, values, words=True)
    assert parser(["a program", "--depth=20"]) == ["a program"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--dpeth=3"], "^Unknown command line flag 'dpeth'. Did you mean: depth"),
        (["compare", "runs/a", "--depth=x"], "^flag --depth=x: must be a whole number"),
        (["--flagfile=bad.flags", "compare"], "^bad.flags, line 2: --momntum=1: Unknown"),
        (["compare", "--flagfile=bad.flags"], "^bad.flags, line 2: --momntum=1: Unknown"),
    ],
)
def test_beside_words_what_is_wrong_with_a_flag_is_named(values, folder, arguments, words):
    (folder / "bad.flags").write_text("--depth=20\n--momntum=1\n")
    parser = config_flags.parser("A description.", TrainConfig, values, words=True)
    with pytest.raises(ValueError, match=words):
        parser(["a program", *arguments])


def test_a_word_is_refused_where_only_flags_are_right(values):
    for arguments in (["compare", "--depth=20"], ["--depth=20", "compare"], ["--", "compare"]):
        with pytest.raises(ValueError, match=r"^Only flags are understood. Received: compare"):
            parse(values, *arguments)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--seed=", "flag --seed=: must be a whole number"),
        ("--seed=1e3", "flag --seed=1e3: must be a whole number"),
        ("--seed=1\0002", r"flag --seed=1\x002: must be a whole number"),
        ("--momentum= ", "flag --momentum= : must be a number"),
        ("--momentum=\x1b[2J", r"flag --momentum=\x1b[2J: must be a number"),
        ("--seed=" + "9" * 5000, "9: must be a whole number of at most 40 digits"),
        ("--drop_steps=1,x", "int numbers separated by commas; each must be a whole number"),
        ("--drop_steps=1," + "9" * 5000, "each must be a whole number of at most 40 digits"),
        ("--momentum=" + "x" * 5000, "xxx: must be a number"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_number_is_refused_in_one_short_line(values, flag, message):
    with pytest.raises(ValueError) as caught:
        parse(values, flag)
    line, _ = str(caught.value).splitlines()
    assert line.endswith(message) and line.startswith(flag[:8].join(["flag ", ""]))
    assert len(line) < 600


def test_words_beside_flags_are_shown_in_one_short_line(values):
    with pytest.raises(ValueError, match="Only flags are understood") as caught:
        parse(values, "\x1b[2J\n", "x" * 5000)
    line, _ = str(caught.value).splitlines()
    assert r"\x1b[2J\n x" in line and len(line) < 600


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--dpeth=20", "Unknown command line flag 'dpeth'. Did you mean: depth"),
        ("--depth=twenty", "--depth=twenty: must be a whole number"),
        ("--drop_steps=1,x", "int numbers separated by commas"),
        ("--noresume=3", "does not take an argument"),
        ("depth=20", "A line must be a flag, as in --depth=20, or a comment after #."),
        ("--depth", "Missing value for flag --depth"),
        ("--flagfile=none.flags", "Received: none.flags (No such file or directory)"),
        ("--flagfile=.", "Received: . (Is a directory)"),
        ("--flagfile", "--flagfile with no argument"),
    ],
)
def test_an_error_in_a_flagfile_names_its_line(values, folder, line, words):
    good = "# A comment.\n\n--seed\n7\n// Another.\n"
    (folder / "inner.flags").write_text(f"--momentum=0.5\n  {line}  \n")
    (folder / "outer.flags").write_text(f"{good}--flagfile=inner.flags\n--log_steps=10\n")
    with pytest.raises(ValueError) as caught:
        parse(values, "--warmup_steps=3", "--flagfile", "outer.flags", "--mode=train")
    assert str(caught.value).startswith(f"inner.flags, line 2: {line}: ")
    assert words in str(caught.value)


def test_the_first_of_two_errors_is_named_and_the_command_line_keeps_its_own(values, folder):
    (folder / "good.flags").write_text("--depth=20\n")
    (folder / "bad.flags").write_text("--depth=20\n--momntum=1\n--seed=x\n")
    with pytest.raises(ValueError, match=r"^bad.flags, line 2: --momntum=1: Unknown"):
        parse(values, "--flagfile=good.flags", "--flagfile=bad.flags", "--sede=1")
    with pytest.raises(ValueError, match=r"^Unknown command line flag 'sede'"):
        parse(values, "--flagfile=good.flags", "--sede=1")


def test_a_flagfile_that_is_no_text_is_refused(values, folder):
    (folder / "picture.flags").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with pytest.raises(ValueError, match=r"text file .* Received: picture.flags \(not UTF-8\)"):
        parse(values, "--flagfile=picture.flags")


def test_a_flagfile_without_an_end_is_refused(values, folder):
    (folder / "zero.flags").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"Received: zero.flags \(more than 1,048,576 letters\)"):
        parse(values, "--flagfile=zero.flags")


def test_a_flagfile_may_come_through_a_pipe(values):
    reader, writer = os.pipe()
    os.write(writer, b"--depth=20\r\n--seed=7")
    os.close(writer)
    assert parse(values, f"--flagfile=/dev/fd/{reader}") == {"depth": 20, "seed": 7}
    os.close(reader)


@pytest.mark.parametrize(
    "argument",
    ["--depth=" + "9" * 5000, "x" * 5000, f"--drop_steps={'1,' * 5000}x", "--a\x1b[2J\n"],
)
def test_what_was_received_is_shortened_and_escaped(values, argument):
    with pytest.raises(ValueError) as refused:
        parse(values, argument)
    line, last = str(refused.value).split("\n")
    assert line.isprintable() and len(line) < 600
    assert last == "All flags: python train.py --help"


@pytest.mark.parametrize("name", ["run_dir", "dataset", "data_dir", "mode"])
def test_text_must_not_be_empty(values, name):
    with pytest.raises(ValueError, match=f"^flag --{name}=: must not be empty"):
        parse(values, f"--{name}=")
    assert parse(values, "--shortcut_arguments=") == {"shortcut_arguments": ""}


def test_a_flagfile_that_includes_itself_is_refused(values, folder):
    (folder / "a.flags").write_text("--depth=20\n--flagfile=b.flags\n")
    (folder / "b.flags").write_text("--flagfile=./a.flags\n")
    words = r"^b.flags, line 1: .* not include itself. Received: a.flags -> b.flags -> ./a.flags"
    with pytest.raises(ValueError, match=words):
        parse(values, "--flagfile=a.flags")


def test_a_flagfile_may_be_included_twice_and_what_comes_later_wins(values, folder):
    (folder / "shared.flags").write_text("--seed=1\n")
    (folder / "recipe.flags").write_text(
        "--flagfile=shared.flags\n--seed=2\n--depth=8\n-flagfile=shared.flags\n"
    )
    assert parse(values, "--depth=20", "--flagfile=recipe.flags") == {"depth": 8, "seed": 1}


def test_a_flagfile_is_found_in_the_current_folder_then_beside_the_one_that_names_it(
    values, folder
):
    (folder / "recipes").mkdir()
    (folder / "recipes/recipe.flags").write_text("--flagfile=here.flags\n--flagfile=both.flags\n")
    (folder / "recipes/here.flags").write_text("--seed=1\n")
    (folder / "recipes/both.flags").write_text("--depth=8\n")
    (folder / "both.flags").write_text("--depth=20\n")
    assert parse(values, "--flagfile=recipes/recipe.flags") == {"seed": 1, "depth": 20}


def test_debug_is_known_even_where_another_flag_is_wrong(values):
    assert not config_flags.debugging(values)
    with pytest.raises(ValueError, match="dpeth"):
        parse(values, "--dpeth=3", "--debug")
    assert config_flags.debugging(values)


def test_help_lists_every_flag_under_its_group(values, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(values, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "  --flagfile: " in shown and "  --debug: " in shown
    groups = (
        "run",
        "machine",
        "data",
        "model",
        "fine-tuning",
        "loss",
        "regularization",
        "optimization",
    )
    sections = dict.fromkeys(groups)
    for group in sections:
        sections[group] = shown.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
    for field in dataclasses.fields(TrainConfig):
        assert f"  --{field.name}: " in sections[field.metadata["group"]]
