"""Commands that work where the user stands, in whatever way the program was started there."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

from keras_preact.support import commands, startup

# Prints what a program would, and is found in no clone by chance.
PROGRAM = """
import pathlib, sys
from keras_preact.support import commands
print(commands.this_python())
print(commands.program("export"))
print(commands.module("keras_preact.support.hello"))
"""
HELLO = "print('hello')\n"


@pytest.fixture
def clone(tmp_path):
    """A clone with a blank in its path, whose programs are called by other ones."""
    root = tmp_path / "a clone"
    package = root / "keras_preact" / "support"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.write_text("")
    for module in (commands, startup):
        shutil.copy(module.__file__, package)
    (package / "hello.py").write_text(HELLO)
    (root / "train.py").write_text(PROGRAM)
    (root / "export.py").write_text(HELLO)
    (root / "sub").mkdir()
    (tmp_path / "elsewhere").mkdir()
    return root


def start(arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def printed(arguments, cwd, **environment):
    done = start(arguments, cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_they_work(lines, cwd):
    for command in lines[1:]:
        done = subprocess.run(
            command, shell=True, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "hello\n", (command, done.stderr)


@pytest.mark.parametrize(
    ("cwd", "typed", "script"),
    [
        (".", "train.py", "export.py"),
        (".", "./train.py", "./export.py"),
        ("sub", "../train.py", "../export.py"),
        ("..", "a clone/train.py", "'a clone/export.py'"),
        ("../elsewhere", "../a clone/train.py", "'../a clone/export.py'"),
        ("../elsewhere", "ROOT/train.py", "'ROOT/export.py'"),
    ],
)
def test_commands_name_the_programs_as_the_user_did(clone, cwd, typed, script):
    typed, script = (text.replace("ROOT", str(clone)) for text in (typed, script))
    lines = printed([typed], clone / cwd)
    assert lines[1] == f"{lines[0]} {script}"
    assert lines[2].startswith("PYTHONPATH=") == (cwd != ".")
    check_they_work(lines, clone / cwd)


def test_a_link_to_the_program_leads_to_the_others(clone, tmp_path):
    (tmp_path / "elsewhere" / "train").symlink_to(clone / "train.py")
    lines = printed(["train"], tmp_path / "elsewhere")
    assert lines[1] == f"{lines[0]} '{clone}/export.py'"
    check_they_work(lines, tmp_path / "elsewhere")


def test_what_all_pythons_find_is_called_by_its_name(clone, tmp_path):
    lines = printed(["-c", PROGRAM], tmp_path / "elsewhere", PYTHONPATH=str(clone))
    assert lines[2] == f"{lines[0]} -m keras_preact.support.hello"
    # The clone is found because a variable says so, and it goes on saying so.
    lines = printed([clone / "train.py"], tmp_path / "elsewhere", PYTHONPATH=str(tmp_path))
    assert lines[2].startswith(f"PYTHONPATH='{clone}:{tmp_path}' ")
    check_they_work(lines, tmp_path / "elsewhere")


def test_without_a_clone_the_package_is_called(clone, tmp_path):
    (clone / "export.py").unlink()
    lines = printed([clone / "train.py"], tmp_path / "elsewhere")
    assert lines[1] == f"PYTHONPATH='{clone}' {lines[0]} -m keras_preact export"


@pytest.mark.parametrize("is_on_path", [True, False])
def test_after_the_console_script_commands_name_it(clone, tmp_path, is_on_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    python, script = folder / "python", folder / "keras-preact"
    python.symlink_to(pathlib.Path(sys.executable).resolve())
    script.write_text(f"import sys\nsys.path.insert(0, {str(clone)!r})\n{PROGRAM}")
    script.chmod(0o755)
    path = os.pathsep.join([str(folder)] * is_on_path + [os.environ["PATH"]])
    done = subprocess.run(
        [python, script],
        cwd=clone,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    door = "keras-preact" if is_on_path else script
    assert done.stdout.splitlines()[1] == f"{door} export", done.stderr


def test_where_the_current_folder_has_been_deleted_commands_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "gone").rmdir()
    root = pathlib.Path(commands.__file__).parent.parent.parent
    *_, program = shlex.split(commands.program("export"))
    assert program == str(root / "export.py")
    python, *_ = shlex.split(commands.this_python())
    assert pathlib.Path(shutil.which(python)).samefile(sys.executable)
    assert commands.module("keras_preact.version").endswith(" -m keras_preact.version")
