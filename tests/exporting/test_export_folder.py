"""The folder of an export: complete or absent, whatever happens to the process."""

import contextlib
import json
import os
import shutil

import pytest
from small_exports import tree

from keras_preact.exporting.export_folder import ExportFolder
from keras_preact.support.lock import locked

SHARED = {"class_names": ["ant", "bee"], "image_shape": [8, 8, 1]}
CHANGES = ("rename", "replace", "mkdir", "rmdir", "unlink", "remove")


def fill(stage, version, words):
    files = {
        f"saved_model/{version}/saved_model.pb": words,
        f"saved_model/{version}/variables/variables.index": words,
        f"tflite/{version}/float32.tflite": words,
        f"reports/{version}/report.md": words,
        "report.md": words,
        "report.json": json.dumps({"data": SHARED, "model_name": "net", "words": words}),
        "serving/models.config": words,
        "serving/client.py": words,
    }
    for name, text in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_text(text)


def export(out, words, **options):
    folder = ExportFolder(out, **options)
    with folder.staged() as stage:
        fill(stage, folder.version, words)
    return folder.version


def versions(out):
    """The words of each version, by folder; all its files must hold the same."""
    found = {}
    for kind in ("saved_model", "tflite", "reports"):
        for version in sorted((out / kind).iterdir()):
            [words] = {file.read_text() for file in version.rglob("*") if file.is_file()}
            found.setdefault(kind, {})[version.name] = words
    return found


@pytest.fixture
def out(tmp_path):
    return tmp_path / "here" / "out"


@pytest.fixture
def first(out):
    """A folder with a version, in which the user has changed and added files."""
    export(out, "first")
    (out / "serving" / "models.config").write_text("edited")
    (out / "notes").mkdir()
    (out / "notes" / "thesis.tex").write_text("years of work")
    (out / "saved_model" / "old").mkdir()
    return tree(out)


def test_nothing_is_there_before_all_of_it_is(out):
    folder = ExportFolder(out)
    with folder.staged() as stage:
        fill(stage, folder.version, "first")
        assert not out.exists()
        assert stage.parent == out.parent / ".out.unfinished"
    assert versions(out) == {kind: {"1": "first"} for kind in ("saved_model", "tflite", "reports")}
    assert str(folder.layout.saved_model) == str(out / "saved_model" / "1")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_further_version_touches_nothing_but_the_reports_on_top(out, first):
    assert export(out, "second") == 2
    after = tree(out)
    changed = {name for name in after if after[name] != first.get(name)}
    assert {name for name in changed if name in first} == {"report.md", "report.json"}
    assert {name.split("/")[1] for name in changed - set(first)} == {"2"}
    assert set(first) <= set(after)
    assert (out / "report.md").read_text() == "second"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("begun", [False, True])
def test_where_an_export_fails_all_is_as_it_was(tmp_path, error, begun):
    out = tmp_path / "new" / "out"
    if begun:
        export(out, "first")
    before = tree(tmp_path)
    with pytest.raises(error), ExportFolder(out).staged() as stage:
        fill(stage, 2, "half")
        raise error
    assert tree(tmp_path) == before


class Moments:
    """Copies of a folder, made before each change of a process to it."""

    def __init__(self, folder, copies):
        self._folder, self._copies, self._copying = folder, copies, False

    def _change(self, original):
        def change(*arguments, **options):
            if not self._copying:
                self._copying = True
                shutil.copytree(self._folder, self._copies / str(len(self)))
                self._copying = False
            return original(*arguments, **options)

        return change

    @contextlib.contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in CHANGES:
                patch.setattr(os, name, self._change(getattr(os, name)))
            yield

    def __len__(self):
        return len(list(self._copies.iterdir()))

    def __iter__(self):
        return iter(sorted(self._copies.iterdir(), key=lambda path: int(path.name)))


@pytest.mark.parametrize("state", ["absent", "empty", "hidden", "exported"])
@pytest.mark.parametrize("failing", [False, True])
def test_a_process_killed_at_any_moment_leaves_no_half_version_and_the_next_cleans_up(
    tmp_path, state, failing
):
    here, copies = tmp_path / "here", tmp_path / "moments"
    copies.mkdir()
    if state == "exported":
        export(here / "out", "first")
    (here / "out").mkdir(parents=True, exist_ok=state != "empty")
    if state == "absent":
        (here / "out").rmdir()
    if state == "hidden":
        (here / "out" / ".hidden").write_text("of the system")
    moments = Moments(here, copies)
    folder = ExportFolder(here / "out")
    with moments.watched(), contextlib.suppress(ValueError), folder.staged() as stage:
        fill(stage, folder.version, "killed")
        if failing:
            raise ValueError
    assert len(moments) > 12
    seen = set()
    for moment in moments:
        out = moment / "out"
        before = {"saved_model": {}}
        before |= versions(out) if (out / "saved_model").exists() else {}
        servable = before["saved_model"]
        # A version that servers see is complete, with its TFLite files and reports.
        assert all(servable.items() <= found.items() for found in before.values())
        assert state != "exported" or servable["1"] == "first"
        number = export(out, "next")
        after = versions(out)
        assert after["saved_model"] == after["tflite"] == after["reports"]
        assert servable.items() <= after["saved_model"].items()
        assert after["saved_model"][str(number)] == "next"
        assert (out / "report.md").read_text() == "next"
        assert [path.name for path in moment.iterdir()] == ["out"], list(moment.rglob("*"))
        seen.add(tuple(after["saved_model"].values()))
    begun = ("first",) if state == "exported" else ()
    finished = set() if failing else {(*begun, "killed", "next")}
    assert seen == {(*begun, "next"), *finished}


def test_while_one_exports_another_is_refused_and_then_gets_the_next_version(out):
    one, other, same = ExportFolder(out), ExportFolder(out), ExportFolder(out, version=1)
    with one.staged() as stage:
        fill(stage, one.version, "one")
        with pytest.raises(ValueError, match="in use by process"), other.staged():
            pytest.fail("two are in")
    with other.staged() as stage:
        fill(stage, other.version, "other")
    assert versions(out)["saved_model"] == {"1": "one", "2": "other"}
    with pytest.raises(ValueError, match="version must be one that"), same.staged():
        pytest.fail("a version would be replaced")
    assert versions(out)["saved_model"] == {"1": "one", "2": "other"}


def test_a_link_to_a_folder_is_the_folder(tmp_path):
    for name, made in (("new", False), ("empty", True)):
        if made:
            (tmp_path / name).mkdir()
        link = tmp_path / f"to_{name}"
        link.symlink_to(tmp_path / name)
        with locked(tmp_path / f".{name}.unfinished"), pytest.raises(ValueError, match="in use"):
            export(link, "first")
        assert [export(link, words) for words in ("first", "second")] == [1, 2]
        assert link.is_symlink()
        assert versions(tmp_path / name)["saved_model"] == {"1": "first", "2": "second"}


def test_where_a_disk_begins_the_export_is_built_on_it(out, monkeypatch):
    out.mkdir(parents=True)
    (out / ".hidden").write_text("of the system")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(out))
    folder = ExportFolder(out)
    with folder.staged() as stage:
        assert stage.is_relative_to(out)
        fill(stage, folder.version, "first")
    assert versions(out)["saved_model"] == {"1": "first"}
    assert {path.name for path in out.iterdir() if path.name[0] == "."} == {".hidden"}


def test_all_is_on_the_disk_before_it_gets_its_name(out, monkeypatch):
    flushed = set()

    def fsync(descriptor):
        if not out.exists():
            flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    export(out, "first")
    assert flushed >= {path.stat().st_ino for path in (out, *out.rglob("*"))}


def test_the_next_free_version_follows_the_highest_of_any_kind(out, first):
    (out / "tflite" / "41").mkdir()
    (out / "saved_model" / "7").mkdir()
    assert export(out, "second") == 42
    assert export(out, "third", version=8) == 8
    for taken in (1, 7, 8, 41, 42):
        with pytest.raises(ValueError, match=rf"Received: version={taken}, beside \[1, 7, 8, 41"):
            ExportFolder(out, version=taken)
