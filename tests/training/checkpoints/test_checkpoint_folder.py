"""Checkpoints that are damaged, half-written, or of another architecture."""

import json
import shutil

import pytest
from small_states import assert_same, make, names, save, scramble, values

from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import newest_undamaged, step_of


@pytest.fixture(scope="module")
def state():
    return make(1)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory, state):
    """A folder with checkpoints of steps 9 and 10, from seeds 9 and 10."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (9, 10):
        scramble(state, seed=step)
        save(folder, state, step)
    return folder


@pytest.fixture
def folder(two_saved, tmp_path):
    return shutil.copytree(two_saved, tmp_path / "checkpoints")


def restore(folder, state, lines):
    return checkpoint.Checkpoints(folder, state, keep=3, tell=lines.append).restore()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def without_index(path):
    """Removes the index from the folder and the manifest."""
    (path / INDEX).unlink()
    record = json.loads((path / MANIFEST).read_text())
    del record["files"][INDEX]
    (path / MANIFEST).write_text(json.dumps(record))


DATA, INDEX, MANIFEST = "variables.data-00000-of-00001", "variables.index", "manifest.json"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: (path / DATA).write_bytes((path / DATA).read_bytes()[:-1]), "bytes in place"),
        (lambda path: (path / DATA).write_bytes(b""), "0 bytes in place"),
        (lambda path: flip_a_bit(path / DATA), f"its {DATA} has been changed"),
        (lambda path: flip_a_bit(path / INDEX), f"its {INDEX} has been changed"),
        (lambda path: (path / DATA).unlink(), f"its {DATA} cannot be read: No such file"),
        (lambda path: (path / MANIFEST).unlink(), f"no {MANIFEST}"),
        (lambda path: flip_a_bit(path / MANIFEST), ""),
        (without_index, f"it has no {INDEX}"),
        (lambda path: (path / MANIFEST).write_text('{"files": {'), f"its {MANIFEST} cannot be"),
    ],
)
def test_damage_is_announced_and_the_checkpoint_before_it_restored(folder, harm, words):
    harm(folder / "step-10")
    lines = []
    found = checkpoint.find(folder, "newest", lines.append)
    assert found == str(folder / "step-9")
    [line] = lines
    assert line.startswith(f"{folder / 'step-10'} is damaged: ") and words in line
    # Reading alone does not tidy up.
    assert names(folder) == ["checkpoint", "step-10", "step-9"]
    assert newest_undamaged(folder, lines.append, tidy=True) == found
    assert names(folder) == ["checkpoint", "damaged", "step-9"]
    assert names(folder / "damaged") == ["step-10"]
    # A damaged checkpoint is announced once.
    assert newest_undamaged(folder, lines.append, tidy=True) == found
    assert len(lines) == 2


def test_after_damage_the_run_goes_on_and_saves_the_same_step_again(folder, state):
    other, lines = make(2), []
    for _ in range(2):
        (folder / "step-10" / DATA).write_bytes(b"")
        assert restore(folder, other, lines).step == 9
        scramble(state, seed=9)
        assert_same(values(other), values(state))
        save(folder, state, 10)
        assert restore(folder, other, lines).step == 10
    assert names(folder / "damaged") == ["step-10"]
    assert len(lines) == 2


def test_if_all_checkpoints_are_damaged_they_are_listed_and_stay(folder, state):
    for step in (9, 10):
        (folder / f"step-{step}" / INDEX).unlink()
    before = values(state)
    # Moved away, they would make the next start begin anew.
    for _ in range(2):
        with pytest.raises(ValueError, match=r"All checkpoints .*: .*step-10, .*step-9\. The run"):
            restore(folder, state, [])
    assert names(folder) == ["checkpoint", "step-10", "step-9"]
    assert_same(values(state), before)


def test_unfinished_folders_and_other_files_are_no_checkpoints(folder, state):
    shutil.copytree(folder / "step-10", folder / ".step-11.tmp")
    shutil.copytree(folder / "step-10", folder / ".step-12.deleted")
    (folder / "step-13.txt").write_text("mine")
    (folder / "checkpoint").unlink()
    lines = []
    assert restore(folder, state, lines).step == 10
    assert lines == []
    assert step_of(checkpoint.find(folder, "newest")) == 10
    save(folder, state, 11)
    assert ".step-11.tmp" not in names(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 14},
        {"width_multiplier": 2.0},
        {"shortcut": "exclusive_gating"},
        {"ema_decay": 0.9},
        {"classes": 7},
    ],
    ids=str,
)
def test_another_architecture_is_refused_with_the_variables_that_differ(two_saved, state, options):
    other = make(1, **options)
    with pytest.raises(ValueError, match="step-10 is of another architecture") as error:
        restore(two_saved, other, [])
    old, new = (
        {name: list(value.shape) for name, value in values(each).items()} for each in (state, other)
    )
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    expected = [
        f"  {name}: {old.get(name, 'absent')} in the checkpoint, "
        f"{new.get(name, 'absent')} in this net"
        for name in differing[:5]
    ]
    # Kernel and bias of the last layer, and their momenta; a further unit has many more.
    assert (len(differing) == 4) == (options == {"classes": 7})
    more = [f"  and {len(differing) - 5:,} more"] if len(differing) > 5 else []
    assert str(error.value).splitlines()[1:] == expected + more
    averages = "ema_decay" in options
    with pytest.raises(ValueError, match="averages/" if averages else "model/"):
        checkpoint.load_model(str(two_saved / "step-10"), other.network, averages)
