"""Whole files, sealed folders, and how they fail."""

import json
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.support import files


def seal(path, **contents):
    with files.sealed(path) as folder:
        for name, data in contents.items():
            (folder / name).write_bytes(data)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    files.write_whole(tmp_path / "a.txt", b"old and longer")
    files.write_whole(tmp_path / "a.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path, monkeypatch):
    files.write_whole(tmp_path / "a.txt", b"old")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(tmp_path / "a.txt", b"new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_sealed_folder_has_a_manifest_as_sha256sum_and_ls_would_write_it(tmp_path):
    seal(tmp_path / "it", data=b"abc", empty=b"")
    assert names(tmp_path) == ["it"]
    assert names(tmp_path / "it") == ["data", "empty", "manifest.json"]
    manifest = json.loads((tmp_path / "it" / "manifest.json").read_text())
    # The test vectors of FIPS 180-4.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert manifest["files"] == {
        "data": {"bytes": 3, "sha256": abc},
        "empty": {"bytes": 0, "sha256": nothing},
    }
    assert files.damage(tmp_path / "it") is None


def test_a_folder_does_not_take_its_name_before_it_is_whole(tmp_path):
    with files.sealed(tmp_path / "it") as folder:
        (folder / "data").write_bytes(b"abc")
        assert not (tmp_path / "it").exists()
        assert folder.name.startswith(".")


def test_a_folder_that_could_not_be_filled_leaves_what_was_there(tmp_path):
    seal(tmp_path / "it", data=b"old")
    with pytest.raises(OSError, match="full"), files.sealed(tmp_path / "it") as folder:
        (folder / "data").write_bytes(b"ne")
        raise OSError("full")
    assert names(tmp_path) == ["it"]
    assert (tmp_path / "it" / "data").read_bytes() == b"old"
    assert files.damage(tmp_path / "it") is None


def test_a_folder_takes_the_place_of_one_of_its_name_and_of_what_a_killed_process_left(tmp_path):
    seal(tmp_path / "it", data=b"old", more=b"old")
    (tmp_path / ".it.tmp").mkdir()
    (tmp_path / ".it.tmp" / "rest").write_bytes(b"half")
    seal(tmp_path / "it", data=b"new")
    assert names(tmp_path) == ["it"]
    assert names(tmp_path / "it") == ["data", "manifest.json"]


ENTRY = '{"bytes": 3, "sha256": "ba78"}'


def with_manifest(text):
    return lambda it: (it / "manifest.json").write_text(text)


def of_data(size, checksum):
    return with_manifest(f'{{"files": {{"data": {{"bytes": {size}, "sha256": {checksum}}}}}}}')


def as_pipe(it):
    (it / "data").unlink()
    os.mkfifo(it / "data")


def as_folder(it):
    (it / "data").unlink()
    (it / "data").mkdir()


def named_in_manifest(name):
    return with_manifest(f'{{"files": {{"{name}": {ENTRY}}}}}')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda it: (it / "data").write_bytes(b"ab"), "its data has 2 bytes in place of 3"),
        (lambda it: (it / "data").write_bytes(b"abd"), "its data has been changed"),
        (lambda it: (it / "data").unlink(), "its data cannot be read: No such file"),
        (lambda it: (it / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda it: (it / "manifest.json").write_bytes(b'{"files"'), "cannot be read"),
        (lambda it: (it / "manifest.json").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda it: (it / "manifest.json").write_bytes(b'{"files": {"data": 3}}'), "cannot be"),
        (as_pipe, "its data cannot be read: "),
        (as_folder, "its data cannot be read: "),
        (of_data("null", '"ba78"'), "files.data.bytes must be a whole number. Received: null"),
        (of_data("true", '"ba78"'), "files.data.bytes must be a whole number. Received: true"),
        (of_data("3", "5"), "files.data.sha256 must be a string. Received: 5"),
        (with_manifest('{"files": ["data"]}'), 'files must be an object. Received: ["data"]'),
        (with_manifest('{"files": {}}'), "files must name a file"),
        (with_manifest('{"files": ' + "[" * 5000), "must be nested at most 64 deep"),
        (with_manifest('{"files": {"data": ' + '{"a": ' * 5000), "nested at most 64 deep"),
        *(
            (named_in_manifest(name), f"as they are called in the folder. Received: {shown}")
            for name, shown in (
                ("../data", '"../data"'),
                ("/etc/passwd", '"/etc/passwd"'),
                ("a/data", '"a/data"'),
                ("..", '".."'),
                (".", '"."'),
                ("", '""'),
                ("a\\\\b", '"a\\\\b"'),
                ("data\\u0000", '"data\\u0000"'),
                # No path can be made of it.
                ("\\ud800", '"\\ud800"'),
            )
        ),
    ],
    ids=range(25),
)
def test_damage_is_found_and_described(tmp_path, harm, words):
    seal(tmp_path / "it", data=b"abc")
    harm(tmp_path / "it")
    assert words in files.damage(tmp_path / "it")


def test_what_a_later_version_writes_into_a_manifest_is_no_damage(tmp_path):
    seal(tmp_path / "it", data=b"abc")
    path = tmp_path / "it" / "manifest.json"
    record = json.loads(path.read_text())
    record["files"]["data"]["modified"] = None
    path.write_text(json.dumps({**record, "run": "1f7a"}))
    assert files.damage(tmp_path / "it") is None


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60), st.integers(0, 150), st.integers(0, 150))
def test_whatever_a_manifest_holds_damage_is_described_in_a_line(tmp_path_factory, data, at, end):
    folder = tmp_path_factory.getbasetemp() / "any"
    seal(folder, data=b"abc")
    path = folder / "manifest.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[max(at, end) :])
    same = path.read_bytes() == whole
    what = files.damage(folder)
    assert (what is None) == same or b'"files"' in path.read_bytes()
    assert what is None or "\n" not in what


def test_a_folder_is_never_seen_half_deleted(tmp_path):
    seal(tmp_path / "it", data=b"abc")
    (tmp_path / ".it.deleted").mkdir()
    files.remove(tmp_path / "it")
    files.remove(tmp_path / "it")
    assert names(tmp_path) == []


def test_a_folder_is_flushed_with_all_that_lies_in_it_before_itself(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"abc")
    (tmp_path / "d").write_bytes(b"")
    paths, original = {}, os.open

    def note(path, *arguments, **options):
        file = original(path, *arguments, **options)
        paths[file] = os.path.relpath(path, tmp_path)
        return file

    flushed = []
    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(paths[file]))
    files.flush_tree(tmp_path)
    assert sorted(flushed) == [".", "a", "a/b", "a/b/c", "d"]
    assert flushed.index("a/b/c") < flushed.index("a/b") < flushed.index("a")
    assert flushed[-1] == "."


def test_the_checksum_of_a_file_is_sha256sums(tmp_path):
    # Larger than what is read at once.
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    expected = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True).stdout
    assert files.sha256(tmp_path / "a") == expected.split()[0]
