import contextlib
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys

import pytest
from etils import epath

from keras_preact.support import lock
from keras_preact.support.lock import locked

# Loads the module by its path: the package would import TensorFlow.
OWNER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.locked(sys.argv[2]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "runs/first")


@contextlib.contextmanager
def other_process(folder):
    command = [sys.executable, "-c", OWNER, lock.__file__, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def assert_free(folder):
    with locked(folder):
        pass


def test_a_second_process_is_refused_by_the_name_of_the_first(folder):
    with other_process(folder) as process:
        with pytest.raises(ValueError) as caught, locked(folder):
            pytest.fail("two are in")
        words = str(caught.value)
        assert words.startswith(f"{folder} is in use by process {process.pid} on ")
        assert re.search(r" since \d{4}-\d\d-\d\d \d\d:\d\d UTC: .*python.* -c ", words)
        assert "another --run_dir" in words
        process.stdin.close()
        process.wait()
        assert not folder.exists()
        assert_free(folder)


def test_a_killed_process_blocks_nobody(folder):
    with other_process(folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / lock.NAME).exists()
    with locked(folder):
        assert f"process {os.getpid()} " in (folder / lock.NAME).read_text()
    assert not (folder / lock.NAME).exists()


def test_a_process_cannot_enter_twice_and_trying_changes_nothing(folder):
    with locked(folder):
        for _ in range(2):
            with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(folder):
                pytest.fail("entered twice")
    assert_free(folder)


@pytest.mark.parametrize("written", ["", "process 12 on a mach"])
def test_an_owner_that_has_not_told_all_of_itself_still_is_one(folder, written):
    with locked(folder):
        (folder / lock.NAME).write_text(written)
        with pytest.raises(ValueError, match="in use by another process"), locked(folder):
            pytest.fail("two are in")


def test_a_lock_that_is_unlinked_while_it_is_taken_is_taken_anew(folder, monkeypatch):
    folder.mkdir(parents=True)
    real, taken = fcntl.flock, []

    def flock(file, operation):
        real(file, operation)
        taken.append(file)
        if len(taken) == 1:
            (folder / lock.NAME).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(folder):
        assert len(taken) == 2
        with pytest.raises(ValueError, match="in use"), locked(folder):
            pytest.fail("two are in")


def test_a_folder_that_vanishes_while_it_is_locked_is_made_anew(folder, monkeypatch):
    real, opened = os.open, []

    def open_(path, *arguments, **options):
        opened.append(path)
        if len(opened) == 1:
            folder.rmdir()
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_)
    with locked(folder):
        assert (folder / lock.NAME).exists()
    assert not folder.exists() and not folder.parent.exists()


def test_the_lock_of_another_that_took_the_place_is_left_alone(folder):
    with locked(folder):
        (folder / lock.NAME).unlink()
        with locked(folder):
            pass
        (folder / lock.NAME).write_text("of another")
    assert (folder / lock.NAME).read_text() == "of another"


def test_whoever_holds_a_lock_can_ask_whether_the_folder_still_is_its_own(folder):
    with locked(folder) as is_ours:
        assert is_ours()
        moved = folder.rename(folder.parent / "moved")
        assert not is_ours()
        with locked(folder) as is_anothers:
            assert is_anothers() and not is_ours()
        moved.rename(folder)
        assert is_ours()
        (folder / lock.NAME).unlink()
        assert not is_ours()


@pytest.mark.parametrize(
    "make",
    [
        lambda path, other: path.symlink_to(other),
        lambda path, other: path.symlink_to(other.parent / "nowhere"),
        lambda path, other: path.hardlink_to(other),
        lambda path, other: path.write_text("my own"),
        lambda path, other: os.mkfifo(path),
        lambda path, other: path.mkdir(),
    ],
    ids=["link", "dangling link", "hard link", "file", "pipe", "folder"],
)
def test_what_is_no_lock_is_refused_and_stays_as_it_is(tmp_path, make):
    other = tmp_path / "thesis.tex"
    other.write_text("years of work")
    folder = tmp_path / "run"
    folder.mkdir()
    make(folder / lock.NAME, other)
    before = os.lstat(folder / lock.NAME)
    with pytest.raises(ValueError, match=rf"{folder}/\.lock, which is"), locked(folder):
        pytest.fail("locked")
    assert os.path.samestat(os.lstat(folder / lock.NAME), before)
    assert os.lstat(folder / lock.NAME).st_size == before.st_size
    assert other.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "thesis.tex"]


def test_only_empty_folders_that_it_made_are_removed(folder):
    folder.parent.mkdir()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    assert not folder.exists() and folder.parent.exists()
    with locked(folder):
        (folder / "config.json").touch()
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    (folder / "config.json").unlink()
    assert_free(folder)
    assert folder.exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/proc/runs/first", "No such file or directory"),
        ("file", "Not a directory"),
        ("file/runs/first", "Not a directory"),
        ("made/" + "x" * 300, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_and_nothing_is_left(tmp_path, path, reason):
    (tmp_path / "file").touch()
    words = rf"run_dir must be a folder that can be written to. Received: {tmp_path / path} "
    with pytest.raises(ValueError, match=words) as caught, locked(tmp_path / path):
        pytest.fail("entered")
    assert reason in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch, code):
    def refuse(path, *_):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=os.strerror(code)), locked(tmp_path):
        pytest.fail("entered")


def test_full_storage_is_no_fault_of_the_folder(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        with pytest.raises(OSError, match="No space left") as caught, locked(folder):
            pytest.fail("entered")
    assert caught.value.errno == errno.ENOSPC
    assert not folder.parent.exists()


def test_without_locks_the_folder_is_used_and_that_is_said(folder, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(folder):
        assert folder.exists()
    assert not folder.exists()
    with locked(epath.Path("gs://bucket/run")):
        pass
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{folder} is not locked (No locks available)")
    assert second.startswith("gs://bucket/run is not locked")


def test_child_processes_do_not_hold_the_lock(folder):
    with locked(folder):
        sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert_free(folder)
    finally:
        sleeper.kill()
        sleeper.wait()
