"""A wheel built from the tree, in an environment of its own, used from an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("keras_preact", "configs", "pyproject.toml", "setup.py", "README.md")


def call(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of an environment with the wheel alone, beside the packages of this one."""
    root = tmp_path_factory.mktemp("wheel")
    (root / "tree").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / "tree" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call([*pip, "wheel", "--no-deps", f"--wheel-dir={root}", root / "tree"], cwd=root)
    [wheel] = root.glob("*.whl")
    call([sys.executable, "-m", "venv", "--without-pip", root / "env"])
    call([*pip, f"--python={root / 'env/bin/python'}", "install", "--no-deps", wheel], cwd=root)
    [packages] = (root / "env/lib").glob("python*/site-packages")
    # Installing TensorFlow again would take minutes and a gigabyte.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    return root / "env"


@pytest.mark.slow
def test_the_digits_are_trained_and_exported_from_an_empty_folder(environment, tmp_path):
    removed = ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "PYTHONHOME")
    variables = {name: text for name, text in os.environ.items() if name not in removed}
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
    here = {"cwd": tmp_path, "env": variables}

    listed = call("keras-preact", shell=True, **here)
    assert "keras-preact VERB" in listed.stdout and "  train " in listed.stdout
    assert "digits_resnet20" in call("keras-preact recipes", shell=True, **here).stdout

    train = "keras-preact train --recipe=digits_resnet20 --train_steps=100 --scale_schedule"
    trained = call(train, shell=True, **here)
    assert trained.stderr == ""
    assert float(trained.stdout.rpartition("accuracy ")[2].partition("%")[0]) > 50
    [line] = [line for line in trained.stdout.splitlines() if line.startswith("  export: ")]
    command = line.removeprefix("  export: ")
    assert command == "keras-preact export --run_dir=runs/digits_resnet20"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

    exported = call(f"{command} --tflite=float32", shell=True, **here)
    assert exported.stderr == ""
    run = tmp_path / "runs/digits_resnet20"
    assert (run / "export/tflite/1/float32.tflite").exists()
    image, model = run / "export/serving/example.jpg", run / "export/saved_model/1"
    for predict in ("keras-preact predict", "python -m keras_preact predict"):
        assert "%" in call(f"{predict} --model={model} {image}", shell=True, **here).stdout
