"""Tables of one's own in TOML, also hostile and broken ones."""

import pytest

from keras_preact.experiments import own_table

MINE = """
title = "Halves"
source = "a notebook"
recipe = "digits_resnet20"
seeds = [3, 5]
flags = { train_epochs = 1, nesterov = true, drop_epochs = [1, 2] }

[[rows]]
name = "identity"

[[rows]]
name = "half"
label = "half of it"
column = "one"
published = 12.5
published_top5 = 1.5
where = "page 3"
flags = { shortcut = "dropout", shortcut_arguments = "rate=0.25", train_steps = 7 }

[[claims]]
better = "identity"
worse = "half"
where = "page 4"
"""


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_rows_change_the_base_recipe_by_flags(tmp_path):
    table = own_table.read(write(tmp_path, MINE))
    assert (table.name, table.title, table.source) == ("mine", "Halves", "a notebook")
    assert table.seeds == (3, 5)
    first, second = (row.config() for row in table.rows)
    assert (first.dataset, first.depth, first.train_epochs) == ("digits", 20, 1)
    assert (first.nesterov, first.drop_epochs) == (True, (1.0, 2.0))
    # A row's length in steps replaces the table's in epochs.
    assert (second.train_steps, second.train_epochs) == (7, None)
    assert second.make_shortcut().rate == 0.25
    row = table.rows[1]
    assert (row.label, row.column, row.published.where) == ("half of it", "one", "page 3")
    assert (row.published.error_percent, row.published.top5_error_percent) == (12.5, 1.5)
    [claim] = table.claims
    assert (claim.better, claim.worse, claim.where) == ("identity", "half", "page 4")
    assert table.rows[0].label == "identity"


def test_fail_is_a_published_figure(tmp_path):
    table = own_table.read(write(tmp_path, MINE.replace("12.5", '"fail"')))
    assert table.rows[1].published.fails


def test_a_unit_in_a_file_is_found_beside_the_table(tmp_path, monkeypatch):
    (tmp_path / "units.py").write_text(
        "from keras_preact.layers import ActivationOrder\n"
        "Mine = ActivationOrder('conv relu', 'conv relu', 'conv')\n"
    )
    text = 'recipe = "digits_resnet20"\n[[rows]]\nname = "mine"\nflags = { unit = "units.py:Mine" }'
    path = write(tmp_path, text)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    [row] = own_table.read(path).rows
    assert row.flags["unit"] == f"{tmp_path / 'units.py'}:Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows = [", "it must be TOML"),
        (b"\xff\xfe", "it must be UTF-8"),
        ("a = " + "[" * 5000, "must"),
        ('title = "x"', "rows must be given"),
        ("rows = []", "at least. Received: none"),
        ("rows = 3", "rows must be a list"),
        ("[[rows]]", r"rows\[0\].name must be given"),
        ('[[rows]]\nname = "a"\ncolour = 1', r"no other fields than name, label"),
        ('colour = 1\n[[rows]]\nname = "a"', "no other fields than rows, recipe"),
        ('[[rows]]\nname = "../a"', "1 to 80 letters, digits"),
        ('[[rows]]\nname = "a b"', "1 to 80 letters, digits"),
        (f'[[rows]]\nname = "{"a" * 81}"', "1 to 80 letters, digits"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\n[[rows]]\nname = "a"', "a twice"),
        ('recipe = "digits_resnet21"\n[[rows]]\nname = "a"', "Did you mean 'digits_resnet20'"),
        ('[[rows]]\nname = "a"', "must be given"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {depht = 3}', "depht"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {depth = "x"}', "whole number"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {depth = 21}', "6n.2"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {seed = 1}', "by the exper"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {run_dir = "x"}', "by the ex"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\nflags = {unit = {a = 1}}', "tables"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\npublished = "6 %"', "or 'fail'"),
        ('recipe = "digits_resnet20"\n[[rows]]\nname = "a"\npublished = 101', "0 to 100"),
        ('recipe = "digits_resnet20"\nseeds = []\n[[rows]]\nname = "a"', "each once"),
        ('recipe = "digits_resnet20"\nseeds = [1, 1]\n[[rows]]\nname = "a"', "each once"),
        ('recipe = "digits_resnet20"\nseeds = [-1]\n[[rows]]\nname = "a"', "from 0"),
        (
            'recipe = "digits_resnet20"\n[[rows]]\nname = "a"\n'
            '[[claims]]\nbetter = "a"\nworse = "b"',
            "name rows of its table: a. Received: 'b'",
        ),
    ],
)
def test_a_broken_table_is_refused_with_file_rule_and_what_was_received(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=words) as error:
        own_table.read(path)
    assert str(error.value).startswith(f"{path} is not a table of experiments: ")
    assert len(str(error.value)) < 1500


def test_files_that_are_no_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be a file \.toml"):
        own_table.read(write(tmp_path, MINE, "mine.json"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ValueError, match="must be a file"):
        own_table.read(str(tmp_path / "folder.toml"))
    with pytest.raises(OSError, match=r"absent\.toml"):
        own_table.read(str(tmp_path / "absent.toml"))
    with pytest.raises(ValueError, match="must have at most"):
        own_table.read(write(tmp_path, "#" * (2**20 + 1)))
    with pytest.raises(ValueError, match="the file's name must be"):
        own_table.read(write(tmp_path, MINE, "my table.toml"))
