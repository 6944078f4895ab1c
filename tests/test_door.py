"""`keras-preact VERB` and `python -m keras_preact VERB`: one door to all programs."""

import os
import pathlib
import pkgutil
import subprocess
import sys
import time

import pytest

from keras_preact.__main__ import VERBS

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The console script that pip writes.
SCRIPT = "import sys\nfrom keras_preact.__main__ import main\nsys.exit(main())\n"


def call(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "keras-preact"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_alone_it_lists_its_verbs(arguments):
    done = call("-m", "keras_preact", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for name, verb in VERBS.items():
        assert any(line.split() == [name, *verb.text.split()] for line in done.stdout.splitlines())
    assert done.stdout.count("\n  ") == len(VERBS)


def test_the_list_comes_at_once_without_another_package(script, tmp_path):
    for package in ("tensorflow", "keras", "numpy", "absl", "tqdm", "etils"):
        (tmp_path / f"{package}.py").write_text("raise SystemExit('has been imported')\n")
    for command in ([script], ["-m", "keras_preact"], [script, "recipes"], [script, "trian"]):
        began = time.monotonic()
        done = call(*command, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
        assert done.returncode == (2 if "trian" in command else 0), done.stderr
        assert time.monotonic() - began < 10  # TensorFlow alone takes longer on a busy machine
        assert ("cifar10_resnet164" in done.stdout) == ("recipes" in command)


def test_an_unknown_verb_is_refused_with_the_nearest():
    done = call("-m", "keras_preact", "trian", "--depth=20")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: verb must be one of data, train, ")
    assert first.endswith("Received: verb='trian'. Did you mean 'train'?")
    assert second.endswith("-m keras_preact")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_program(verb):
    assert callable(pkgutil.resolve_name(VERBS[verb].function))


def test_recipes_are_listed_with_data_set_depth_and_error(tmp_path):
    done = call("-m", "keras_preact", "recipes", cwd=tmp_path)
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["recipe", "data", "set", "depth", "error", "in", "the", "paper"]
    rows = [line.split(maxsplit=3) for line in lines]
    assert ["cifar10_resnet164", "cifar10", "164", "5.46 %"] in rows
    names = [row[0] for row in rows if row[1] == "cifar10"]
    assert names[:2] == ["cifar10_resnet20", "cifar10_resnet20_modern"]
    assert len(lines) == 14


@pytest.mark.parametrize("through", ["script", "module"])
def test_a_verb_runs_its_program_whose_usage_names_the_door(script, tmp_path, through):
    door = [script] if through == "script" else ["-m", "keras_preact"]
    done = call(*door, "train", "--recipe=digits_resnet20", "--dpeth=20", cwd=tmp_path)
    assert done.returncode == 2
    error, usage = done.stderr.splitlines()
    assert error == "Error: Unknown command line flag 'dpeth'. Did you mean: depth ?"
    assert usage.startswith("All flags: ") and usage.endswith(" -m keras_preact train --help")


@pytest.mark.slow
def test_a_run_through_the_door_names_commands_of_the_door(tmp_path):
    run = tmp_path / "run"
    flags = ["--recipe=digits_resnet20", "--depth=8", "--train_steps=2", f"--run_dir={run}"]
    done = call("-m", "keras_preact", "train", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("  export: ")]
    assert line.endswith(f" -m keras_preact export --run_dir={run}")


def test_another_backend_is_refused_in_one_line():
    done = call("-m", "keras_preact", "train", KERAS_BACKEND="jax")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: keras_preact needs Keras on TensorFlow")
    assert done.stderr.count("\n") == 1


def test_a_users_module_finds_the_public_names(tmp_path):
    (tmp_path / "mine.py").write_text("from keras_preact import ResNetV2, layers\n")
    program = (
        "import sys\nsys.argv = ['keras-preact']\nimport keras_preact\n"
        "assert 'keras' not in sys.modules\nimport mine\nprint(mine.ResNetV2.__name__)\n"
    )
    done = call("-c", program, cwd=tmp_path)
    assert done.stdout == "ResNetV2\n", done.stderr


@pytest.mark.parametrize(
    "room",
    [
        "data",
        *(
            pytest.param(room, marks=pytest.mark.slow)
            for room in ("training", "exporting", "studies", "benchmark")
        ),
    ],
)
def test_without_the_extra_packages_a_room_says_what_to_install(tmp_path, room):
    program = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'etils' else find(name)\n"
        f"import keras_preact\nfrom keras_preact import {room}\n"
    )
    done = call("-c", program)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: Training, data and exports need more packages: "
        'pip install "keras_preact[train]". Not found: etils'
    )


def test_without_the_extra_packages_a_program_ends_with_that_line_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nclass Finder:\n    def find_spec(self, name, path, target=None):\n"
        "        if name == 'etils':\n            raise ModuleNotFoundError(name, name=name)\n\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    for command in (["-m", "keras_preact", "train"], ["-m", "keras_preact.analysis"], ["train.py"]):
        done = call(*command, PYTHONPATH=paths)
        assert done.returncode == 2
        assert done.stderr == (
            "Error: Training, data and exports need more packages: "
            'pip install "keras_preact[train]". Not found: etils\n'
        )
